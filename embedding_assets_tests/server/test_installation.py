"""What `init` writes, and that plain `dagster` commands work by it."""

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import psycopg
import pytest
from sqlalchemy.engine import make_url

from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import BLOCK_END, BLOCK_START
from embedding_assets_tests.checkout import ROOT, Checkout, short_folder
from embedding_assets_tests.loopback_api import LoopbackAPI

DIMENSIONS = 64
NO_STATISTICS = "[cli.telemetry]\nenabled = false\n"
OWN_LINES = "# mine\nOPENAI_API_KEY=sk-of-a-person\nEMBEDDING_PRICE_PER_MILLION_TOKENS=0.5\n"
CALL = (
    '{"recording_id": "r1", "title": "A call", "recorded_at": "2026-10-01T09:00:00Z",'
    ' "segments": [{"speaker": "Ann", "start": 0, "end": 4, "text": "Hello there."}]}'
)


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield api


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that the server's user may reach."""
    with short_folder("init") as folder:
        yield folder


@pytest.fixture
def cli(folder: Path, api: LoopbackAPI) -> Iterator[Checkout]:
    """The command in a checkout of its own, with `.local` as its home.

    Its user has told `dg` to keep no statistics, as the README says.
    """
    home = folder / "home"
    (home / ".config").mkdir(parents=True)
    (home / ".config" / "dg.toml").write_text(NO_STATISTICS)
    cli = Checkout(
        folder / "checkout",
        HOME=str(home),
        EMBEDDING_PROVIDER="openai",
        EMBEDDING_DIMENSIONS=str(DIMENSIONS),
        OPENAI_BASE_URL=api.base_url,
    )
    cli.folder.chmod(0o711)
    yield cli
    cli("stop")


def _materialize(cli: Checkout, env: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a person types who knows the older command; the run's own words."""
    which = ("-m", "embedding_assets.definitions", "--select", "transcript_chunks")
    return cli.run("dagster", "asset", "materialize", *which, "--partition", "r1", env=env).stderr


def _launch(cli: Checkout, env: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a person types; the run's own words."""
    arguments = ("--assets", "transcript_chunks", "--partition", "r1")
    launched = cli.run("dg", "launch", *arguments, env=env)
    return launched.stdout + launched.stderr


def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def test_init_writes_its_block_once_and_keeps_a_persons_lines(cli: Checkout) -> None:
    cli.env_file.write_text(OWN_LINES)
    cli("init")
    written = cli.env_file.read_text()
    assert written.endswith(f"{BLOCK_END}\n{OWN_LINES}")
    assert written.count(BLOCK_START) == 1
    assert stat.S_IMODE(cli.env_file.stat().st_mode) == 0o600

    before = cli.env_file.stat()
    assert "up to date" in cli("init").stdout
    after = cli.env_file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    cli.env_file.write_text(f"{written}MAX_WORKERS=1\n")
    cli("init")
    assert cli.env_file.read_text() == f"{written}MAX_WORKERS=1\n"


def test_init_writes_no_env_where_everything_is_exported_as_in_a_container(cli: Checkout) -> None:
    cli("init")
    cli.env_file.unlink()
    url = make_url(cli("url").stdout.strip()).set(drivername="postgresql+psycopg2")
    exported = {
        "DAGSTER_HOME": str(cli.folder / ".local" / "dagster"),
        "DAGSTER_PG_URL": url.set(database="dagster").render_as_string(hide_password=False),
    }
    assert "up to date" in cli("init", env=exported).stdout
    assert not cli.env_file.exists()


def test_the_projects_dagster_yaml_is_the_one_in_force(cli: Checkout) -> None:
    cli("init")
    link = cli.folder / ".local" / "dagster" / "dagster.yaml"
    assert link.is_symlink()
    assert link.resolve() == (cli.folder / "dagster.yaml").resolve()
    link.unlink()
    link.write_text("telemetry: {enabled: true}\n")
    cli("init")
    assert link.resolve() == (cli.folder / "dagster.yaml").resolve()


@pytest.mark.slow  # eight commands, two of them whole Dagster runs in processes of their own
@pytest.mark.timeout(240)
def test_dagster_commands_work_without_exports_and_an_exported_home_wins(
    cli: Checkout, folder: Path, api: LoopbackAPI
) -> None:
    cli.env_file.write_text(OWN_LINES)
    second = {"EMBEDDING_ASSETS_HOME": str(folder / "second")}
    try:
        cli("init")
        cli("import", "-", given=CALL)
        cli("run")
        cli("init", env=second)
        cli("import", "-", given=CALL.replace("Hello", "Goodbye"), env=second)
        cli("run", env=second)
        urls = [cli("url", env=where).stdout.strip() for where in ({}, second)]
        count = "SELECT count(*) FROM embedding_attempts"
        runs = "SELECT count(*) FROM runs"
        dagsters = [url.replace("/embedding_assets?", "/dagster?") for url in urls]

        assert "RUN_SUCCESS" in _launch(cli)
        assert [_rows(url, count) for url in urls] == [[(2,)], [(1,)]]
        assert [_rows(url, runs) for url in dagsters] == [[(2,)], [(1,)]]

        assert "RUN_SUCCESS" in _materialize(cli, second)
        assert [_rows(url, count) for url in urls] == [[(2,)], [(2,)]]
        assert [_rows(url, runs) for url in dagsters] == [[(2,)], [(2,)]]
        assert "Goodbye" in str(_rows(urls[1], "SELECT chunk_text FROM transcript_chunks"))
    finally:
        cli("stop", env=second)
    assert api.stats.sent_twice == []
    written = {path.name for path in cli.folder.iterdir()}
    assert written <= {
        ".env", ".local", "embedding_assets", "dagster.yaml", "workspace.yaml", "pyproject.toml",
    }  # fmt: skip


@pytest.mark.slow  # three commands, two of which load all definitions in processes of their own
def test_dg_finds_the_definitions_and_keeps_no_statistics_if_told(
    cli: Checkout, folder: Path
) -> None:
    cli("init")
    checked = cli.run("dg", "check", "defs")
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr
    listed = json.loads(cli.run("dg", "list", "defs", "--json").stdout)
    assert "transcript_chunks" in {asset["asset_key"] for asset in listed["assets"]}
    assert not (folder / "home" / ".dagster").exists()


def test_the_readme_says_how_dg_keeps_no_statistics() -> None:
    assert NO_STATISTICS in (ROOT / "README.md").read_text()


def test_a_setting_of_the_environment_wins_over_dot_env(cli: Checkout) -> None:
    cli.env_file.write_text("DATABASE_URL=postgresql://nobody@127.0.0.1:1/nothing\n")
    url = "postgresql://somebody@127.0.0.1:1/something"
    assert cli("url").stdout.strip() == "postgresql://nobody@127.0.0.1:1/nothing"
    assert cli("url", env={"DATABASE_URL": url}).stdout.strip() == url
    cli.env_file.unlink()


def test_on_a_server_of_ones_own_dagsters_database_is_made_beside(
    cli: Checkout, server: EmbeddedPostgres, empty_database_url: str
) -> None:
    own = {"DATABASE_URL": empty_database_url}
    try:
        shown = cli("init", env=own).stdout
        assert "Postgres of DATABASE_URL" in shown
        assert "migrated" in shown
        cli("import", "-", given=CALL, env=own)
        cli("run", env={"OPENAI_API_KEY": "k"} | own)
        completed = "SELECT recording_id FROM embedding_queue WHERE status = 'completed'"
        assert _rows(empty_database_url, completed) == [("r1",)]
        assert _rows(server.url("dagster"), "SELECT count(*) FROM runs") == [(1,)]
        assert not (cli.folder / ".local" / "postgres").exists()
    finally:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS dagster WITH (FORCE)")


def test_a_dagster_database_that_is_named_and_missing_is_an_error_without_its_password(
    cli: Checkout,
) -> None:
    url = "postgresql+psycopg2://someone:hunter2@127.0.0.1:1/dagster"
    result = cli("init", code=1, env={"DAGSTER_PG_URL": url})
    assert "DAGSTER_PG_URL" in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


def test_another_instance_configuration_may_be_in_force(cli: Checkout) -> None:
    other = cli.folder / "other.yaml"
    other.write_text((cli.folder / "dagster.yaml").read_text())
    link = cli.folder / ".local" / "dagster" / "dagster.yaml"
    cli("init", env={"DAGSTER_YAML": "other.yaml"})
    assert link.resolve() == other.resolve()
    told = cli("init", env={"DAGSTER_YAML": "nowhere.yaml"}, code=2).stderr
    assert "DAGSTER_YAML" in told
    assert "nowhere.yaml" in told
    assert link.resolve() == other.resolve()
