import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    StatementTimeoutError,
    TransientError,
)
from embedding_assets.engine.outcome import Result
from embedding_assets.engine.queue import Claims
from embedding_assets.migrations import migrate
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import CHUNKING, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop."""
    home = Path(tempfile.mkdtemp(prefix="embedding-assets-restart-"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home)
    try:
        server.ensure_running()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


def test_a_run_survives_a_restart_of_the_database(
    own_server: EmbeddedPostgres, api: LoopbackAPI
) -> None:
    own_server.ensure_database("calls")
    url = own_server.url("calls")
    migrate(url)
    restarts = []

    def restart(_: object) -> bool:
        own_server.stop()
        own_server.ensure_running()
        restarts.append(1)
        return False

    api.faults = [Fault(when=lambda texts: not restarts and restart(texts))]
    with Database(url) as database:
        with database.transaction() as connection:
            for name in "abc":
                add_call(connection, name, talk(name, 20))
        claims = Claims(database, "run")
        run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
        assert [o.result for o in run.embed(claims.due())] == [Result.PUBLISHED] * 3
        assert len(restarts) == 1
        assert rows(database, "SELECT count(*) FROM embedding_attempts") == [(3,)]
    assert api.stats.sent_twice == []


KINDS = {
    "SELECT pg_sleep(5)": StatementTimeoutError,
    "SELECT * FROM no_such_table": ConfigurationError,
    "SELECT no_such_column FROM embedding_queue": ConfigurationError,
    "SELECT 'x'::integer": InvalidInputError,
    "SELECT pg_terminate_backend(pg_backend_pid())": TransientError,
}


def _execute(database: Database, *statements: str) -> None:
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


@pytest.mark.parametrize("statement", KINDS)
def test_the_sqlstate_decides_what_an_error_means(database: Database, statement: str) -> None:
    with pytest.raises(KINDS[statement]):
        _execute(database, "SET LOCAL statement_timeout = '50ms'", statement)


def test_an_error_quotes_no_row(database: Database) -> None:
    insert = "INSERT INTO fathom_calls (recording_id, title) VALUES ('secret', 'x')"
    with pytest.raises(EmbeddingAssetsError) as caught:
        _execute(database, insert, insert)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = f"postgresql://postgres:hunter2@/none?host={tmp_path}"
    with (
        pytest.raises(TransientError, match="DATABASE_URL") as caught,
        Database(url) as database,
        database.transaction(),
    ):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgressql//bob:secret@h/d", "postgresql://bob:sec/ret@h/d", "mysql://bob:secret@h/d"]
)
def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"DATABASE_URL is not a URL.*%2F") as caught,
        Database(url) as database,
        database.transaction(),
    ):
        pass
    assert "sec" not in str(caught.value)


def test_pgvector_off_the_search_path_is_found_in_every_transaction(
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    with Database(empty_database_url) as database:
        for _ in range(2):
            with database.transaction() as connection:
                connection.execute("SELECT '[1,2]'::vector")
        with pytest.raises(psycopg.errors.UndefinedObject):  # nothing of it stays in the session
            psycopg.connect(empty_database_url).execute("SELECT '[1,2]'::vector")
