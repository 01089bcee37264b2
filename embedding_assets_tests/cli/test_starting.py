"""What a command does not load: libraries that it has no use for would take most of its time."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import aiosql
import pytest

import embedding_assets
from embedding_assets.engine.database import Statements
from embedding_assets_tests.checkout import Checkout, short_folder
from embedding_assets_tests.loopback_api import LoopbackAPI

DIMENSIONS = 64
# Runs the command as its script does, then says which modules there are.
PROGRAM = """
import json, sys
from embedding_assets.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
NEVER = {
    "alembic", "apprise", "charset_normalizer", "dagster", "fastapi", "filelock", "httpx",
    "matplotlib", "mcp", "pandas", "phonenumbers", "sqlalchemy", "standardwebhooks", "uvicorn",
}  # fmt: skip
MODEL = {"numpy", "onnxruntime", "openai", "openvino", "tokenizers"}
ROOMS = ("engine", "health", "recorders", "search")


@pytest.fixture(scope="module")
def cli() -> Iterator[Checkout]:
    """The command in a checkout of its own, with a call that is embedded through a loopback API."""
    with short_folder("starting") as folder, LoopbackAPI(dimensions=DIMENSIONS) as api:
        cli = Checkout(
            folder / "checkout",
            EMBEDDING_ASSETS_HOME=str(folder / "home"),
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            OPENAI_API_KEY="any",
            OPENAI_BASE_URL=api.base_url,
        )
        try:
            cli("init")
            yield cli
        finally:
            cli("stop")


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (("--help",), NEVER | MODEL | {"psycopg"}),
        (("status",), NEVER | MODEL),
        (("monitor", "--json"), NEVER | {"onnxruntime", "openai", "openvino", "tokenizers"}),
        (("search", "clams", "--mode", "keyword"), NEVER | {"onnxruntime", "openai", "openvino"}),
        (("search", "clams"), NEVER - {"charset_normalizer", "httpx"} | {"onnxruntime"}),
    ],
)
def test_a_short_command_loads_only_what_it_needs(
    cli: Checkout, arguments: tuple[str, ...], needless: set[str]
) -> None:
    said = cli.run(sys.executable, "-c", PROGRAM, *arguments).stdout
    loaded = set(json.loads(said.splitlines()[-1]))
    assert "click" in loaded
    assert loaded & needless == set()


@pytest.mark.parametrize("room", ROOMS)
def test_statements_are_those_of_the_files_and_each_can_be_parsed(room: str) -> None:
    folder = Path(embedding_assets.__file__).parent / room / "sql"
    statements = Statements(folder)
    parsed = aiosql.from_path(folder, "psycopg")
    names = {name for name in parsed.available_queries if not name.endswith("_cursor")}
    assert set(dir(statements)) == names
    for name in names:
        assert getattr(statements, name).sql == getattr(parsed, name).sql
    with pytest.raises(AttributeError, match="no_such_statement"):
        statements.no_such_statement  # noqa: B018
