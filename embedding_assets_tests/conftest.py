import itertools
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.outcome import Outcome
from embedding_assets.engine.queue import Claims
from embedding_assets.migrations import migrate
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import CHUNKING, DIMENSIONS, Embed, embedder_of
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.machine import skipped

_NUMBERS = itertools.count(1)


def pytest_configure() -> None:
    # In the background of a script SIGINT is ignored, also by all that is started from here; the
    # tests that press Ctrl-C would wait for ever, and Dagster would ignore SIGTERM, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files whose tests take minutes come first, so that no process waits for one at the end.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header() -> str:
    return skipped()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--faults", choices=("some", "all"), default="some", help="how many moments are tried"
    )
    group.addoption("--faults-seed", type=int, default=1, help="which moments are tried")
    group.addoption("--faults-report", type=Path, help="a file for the table of faults")


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A running server with a home of its own, for all tests."""
    home = Path(tempfile.mkdtemp(prefix="embedding-assets-tests-"))
    home.chmod(0o711)  # as root, the server's user must get to its data
    server = EmbeddedPostgres(home)
    try:
        server.ensure_running()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


@pytest.fixture
def empty_database_url(server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a fresh database without tables, dropped afterwards whoever is connected."""
    name = f"test_{next(_NUMBERS)}"
    server.ensure_database(name)
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def migrated_template(server: EmbeddedPostgres) -> str:
    """The name of a migrated database that others are copied from."""
    server.ensure_database("migrated")
    migrate(server.url("migrated"))
    return "migrated"


@pytest.fixture
def database_url(server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh migrated database, dropped afterwards whoever is connected."""
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
        yield server.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connection to a fresh migrated database."""
    with Database(database_url) as database:
        yield database


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield api


@pytest.fixture
def embed(database: Database, api: LoopbackAPI) -> Embed:
    """Embeds what is due, or these recordings, in a run of its own."""

    def embed(
        *recording_ids: str,
        run_id: str = "run",
        embedder: Any = None,
        waits: bool = False,
        **settings: Any,
    ) -> list[Outcome]:
        claims = Claims(database, run_id, timedelta(minutes=5))
        run = EmbeddingRun(database, embedder or embedder_of(api), CHUNKING, claims, **settings)
        claimed = claims.these(recording_ids) if recording_ids else claims.due()
        return list(run.embed(claimed, waits_for_batches=waits))

    return embed
