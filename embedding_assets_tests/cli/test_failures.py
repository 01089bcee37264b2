"""What a person reads when the world fails: one line, no traceback, the exit code as documented."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import talk
from embedding_assets_tests.checkout import Checkout, short_folder
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

NOBODY = "postgresql+psycopg2://someone:hunter2@127.0.0.1:1/dagster"
SAID = "the heron stands in the shallow water"


@contextmanager
def _server(name: str) -> Iterator[EmbeddedPostgres]:
    with short_folder(name) as folder:
        server = EmbeddedPostgres(folder)
        server.ensure_running()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def storage() -> Iterator[EmbeddedPostgres]:
    """The server of Dagster's storage alone."""
    with _server("storage") as server:
        yield server


@pytest.fixture
def cli(database_url: str, storage: EmbeddedPostgres, api: LoopbackAPI, tmp_path: Path) -> Checkout:
    """The command on an installation with three calls to embed."""
    storage.ensure_running()
    storage.ensure_database("dagster")
    checkout = Checkout(
        tmp_path / "checkout",
        EMBEDDING_ASSETS_HOME=str(tmp_path / "home"),
        DATABASE_URL=database_url,
        DAGSTER_PG_URL=storage.url("dagster").replace("postgresql:", "postgresql+psycopg2:", 1),
        EMBEDDING_PROVIDER="openai",
        EMBEDDING_DIMENSIONS="32",
        OPENAI_API_KEY="k",
        OPENAI_BASE_URL=api.base_url,
    )
    checkout("init")
    with psycopg.connect(database_url) as connection:
        for name in "abc":
            connection.execute(
                "INSERT INTO fathom_calls (recording_id, title) VALUES (%s, 'A call')", [name]
            )
            for position, text in enumerate([SAID, *talk(name, 5)]):
                connection.execute(
                    "INSERT INTO fathom_transcripts (recording_id, position, text)"
                    " VALUES (%s, %s, %s)",
                    [name, position, text],
                )
    return checkout


def _told(cli: Checkout, *arguments: str, code: int = 1) -> str:
    """The one line that a command says."""
    told = cli(*arguments, code=code).stderr
    assert "Traceback" not in told
    assert "hunter2" not in told
    assert SAID not in told
    (line,) = told.strip().splitlines()
    return line


def _set_read_only(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # type: ignore[arg-type]


def test_dagsters_storage_that_is_away_when_a_run_begins(cli: Checkout) -> None:
    cli.environment["DAGSTER_PG_URL"] = NOBODY
    assert "Dagster's storage does not answer" in _told(cli, "run")
    assert "DAGSTER_PG_URL" in _told(cli, "init")
    monitored = cli("monitor", code=2).stdout
    assert "orchestration    Dagster's storage does not answer" in monitored
    assert "hunter2" not in monitored


@pytest.mark.slow  # Dagster tries long
def test_dagsters_storage_that_goes_away_in_the_middle_of_a_run(
    cli: Checkout, storage: EmbeddedPostgres, api: LoopbackAPI, database_url: str
) -> None:
    api.faults = [Fault(when=lambda _: storage.stop() and False)]
    told = cli("run", code=1).stderr
    assert "Traceback" not in told  # Dagster says in a line each what it could not store
    assert told.splitlines()[-1].startswith("error: Dagster's storage failed")
    api.faults = []
    with psycopg.connect(database_url) as connection:
        held = "SELECT count(*) FROM embedding_queue WHERE claimed_by IS NOT NULL"
        assert connection.execute(held).fetchall() == [(0,)]
    storage.ensure_running()
    cli("run")
    assert api.stats.sent_twice == []
    assert "completed" in cli("status").stdout


def test_a_storage_that_takes_no_writes(cli: Checkout, storage: EmbeddedPostgres) -> None:
    _set_read_only(storage.url("dagster"))
    try:
        assert "Dagster's storage takes no writes" in _told(cli, "run")
    finally:
        with psycopg.connect(storage.url(), autocommit=True) as connection:
            connection.execute("ALTER DATABASE dagster RESET default_transaction_read_only")


@pytest.mark.slow
def test_a_database_that_takes_no_writes(cli: Checkout, database_url: str) -> None:
    _set_read_only(database_url)
    told = "the database takes no writes: DATABASE_URL leads to a standby"
    run = cli("run", code=1)
    assert "Traceback" not in run.stderr
    assert told in run.stderr
    assert told in cli("monitor", code=2).stdout
    assert "3 due now" in cli("status").stdout


@pytest.mark.parametrize("table", ["fathom_calls", "fathom_transcripts"])
def test_the_monitor_tells_whose_lock_is_on_the_recorders_tables(
    cli: Checkout, database_url: str, table: str
) -> None:
    with psycopg.connect(database_url, application_name="somebody") as connection:
        connection.execute(f"LOCK TABLE {table}")  # type: ignore[arg-type]
        monitored = cli("monitor", code=2)
        pid = connection.info.backend_pid
    assert f"{table} is locked by process {pid} of the role postgres (somebody)" in monitored.stdout


def test_a_home_that_cannot_be_made_and_debug_shows_the_rest(cli: Checkout) -> None:
    cli.environment["EMBEDDING_ASSETS_HOME"] = "/proc/nowhere"
    del cli.environment["DATABASE_URL"]
    line = _told(cli, "init")
    assert "/proc/nowhere" in line
    for command in (["--debug", "init"], ["init", "--debug"]):
        told = cli(*command, code=1).stderr
        assert told.startswith("Traceback")
        assert told.endswith(f"{line}\n")
