"""Upgrades while everything runs: nobody waits for long, and code that is too old ends in time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from embedding_assets import migrations
from embedding_assets.engine import database as database_module
from embedding_assets.engine.database import SCHEMA_REVISION, Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.engine.queue import Claims
from embedding_assets.migrations import migrate
from embedding_assets_tests.calls import CHUNKING, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import LoopbackAPI

NEXT = f"{int(SCHEMA_REVISION) + 1:04}"


def _say(database: Database, revision: str, oldest_code: str | None) -> None:
    with database.transaction(any_schema=True) as connection:
        connection.execute(
            "UPDATE embedding_assets_version SET version_num = %s, oldest_code = %s",
            [revision, oldest_code],
        )


def test_every_revision_says_beside_which_code_it_works() -> None:
    script = ScriptDirectory.from_config(migrations._config())
    for revision in script.walk_revisions():
        oldest = getattr(revision.module, "oldest_code", None)
        assert (oldest is not None) == (revision.revision >= "0014"), revision.revision
        assert oldest is None or "0014" <= oldest <= revision.revision


def test_code_works_on_a_newer_schema_that_says_so(database: Database, database_url: str) -> None:
    _say(database, NEXT, SCHEMA_REVISION)
    database.check_schema()
    assert not migrate(database_url)  # nor does it take the newer one back


@pytest.mark.parametrize("oldest", [NEXT, None])
def test_code_refuses_a_schema_that_is_for_newer_code(
    database: Database, database_url: str, oldest: str | None
) -> None:
    _say(database, NEXT, oldest)
    with pytest.raises(ConfigurationError, match="upgrade it here"):
        database.check_schema()
    with pytest.raises(ConfigurationError, match="upgrade it here"):
        migrate(database_url)


@pytest.mark.parametrize("before", ["0013", "0012"])
def test_code_refuses_a_schema_that_is_behind(empty_database_url: str, before: str) -> None:
    migrate(empty_database_url, before)
    with (
        Database(empty_database_url) as database,
        pytest.raises(ConfigurationError, match="embedding-assets init"),
    ):
        database.check_schema()


def test_a_worker_that_started_before_ends_by_itself_and_gives_back_what_it_holds(
    database: Database, database_url: str, api: LoopbackAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SCHEMA_SECONDS", 0.0)
    with database.transaction() as connection:
        for name in "abcdefgh":
            add_call(connection, name, talk(name, 6))
    with Database(database_url) as own:
        own.check_schema()
        claims = Claims(own, "old worker", timedelta(minutes=5))
        run = EmbeddingRun(own, embedder_of(api, concurrency=1), CHUNKING, claims)
        outcomes = run.embed(claims.due())
        first = next(outcomes)
        _say(database, SCHEMA_REVISION, NEXT)  # a migration for newer code begins
        with pytest.raises(ConfigurationError, match="upgrade it here"):
            list(outcomes)
    states = {row.recording_id: row for row in rows(database, "SELECT * FROM embedding_queue")}
    assert states[first.recording_id].status == "completed"
    assert {row.status for row in states.values()} == {"completed", "pending"}
    assert all(row.attempts == 0 and row.claimed_by is None for row in states.values())
    # What was published is whole, and what was not is not there at all.
    published = rows(database, "SELECT DISTINCT recording_id FROM transcript_chunks ORDER BY 1")
    completed = [each for each, row in sorted(states.items()) if row.status == "completed"]
    assert [row.recording_id for row in published] == completed


FAKE = """
from alembic import op
revision = {revision!r}
down_revision = {before!r}
oldest_code = {oldest!r}
def upgrade():
    op.execute("CREATE TABLE made_by_the_next_revision ()")
"""


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a revision after the newest; gives how long its migration slept."""
    ours = migrations._config

    def config() -> Config:
        config = ours()
        folders = [str(Path(migrations.__file__).parent / "versions"), str(tmp_path)]
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join(folders))
        return config

    slept: list[float] = []

    def make(oldest: str) -> list[float]:
        text = FAKE.format(revision=NEXT, before=SCHEMA_REVISION, oldest=oldest)
        (tmp_path / "next.py").write_text(text)
        monkeypatch.setattr(migrations, "_config", config)
        return slept

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(migrations.time, "sleep", sleep)  # type: ignore[attr-defined]
    return make


def test_a_migration_beside_which_running_code_works_is_done_at_once(
    database: Database, database_url: str, next_revision: Any
) -> None:
    ((running,),) = rows(database, "SELECT oldest_code FROM embedding_assets_version")
    slept = next_revision(running)
    assert migrate(database_url)
    assert slept == []
    database.check_schema()


def test_other_code_is_told_first_and_has_time_to_end(
    database: Database, database_url: str, next_revision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_revision(NEXT)
    seen = []

    def look(seconds: float) -> None:
        made = rows(database, "SELECT to_regclass('made_by_the_next_revision') AS made")[0].made
        with pytest.raises(ConfigurationError, match="upgrade it here"):
            database.check_schema()
        seen.append((seconds, made))

    monkeypatch.setattr(migrations.time, "sleep", look)  # type: ignore[attr-defined]
    assert migrate(database_url)
    assert seen == [(database_module.SCHEMA_SECONDS, None)]
    with pytest.raises(ConfigurationError, match="upgrade it here"):
        database.check_schema()


# A worker's insert, as of the first revision.
STORE = """
INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)
SELECT 'local/m/2', sha256(('vector ' || n)::bytea), '[1,-1]', 5
FROM generate_series(%s::int, %s::int) AS n
"""
READ = "SELECT count(*) FROM chunk_embeddings"


@contextmanager
def _migrating(url: str, revision: str = "head") -> Iterator[threading.Thread]:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            migrate(url, revision)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(timeout=120)
    assert not thread.is_alive()
    assert failures == []


def test_nobody_waits_behind_a_migration_that_waits_for_a_long_transaction(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.3)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", 0.1)
    migrate(empty_database_url, "0003")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(STORE, [1, 1000])
    with (
        psycopg.connect(empty_database_url) as reader,
        psycopg.connect(empty_database_url, autocommit=True) as worker,
    ):
        # Someone reads all tables, and goes to lunch.
        reader.execute("SELECT FROM chunk_embeddings, transcript_chunks, fathom_calls LIMIT 1")
        # Ten times as long as the migration may wait: who waits behind it all the time fails.
        worker.execute("SET lock_timeout = '3s'")
        with _migrating(empty_database_url) as thread:
            waits = 0
            for n in range(200_000):
                worker.execute(STORE, [n + 2000, n + 2000])
                worker.execute(READ)
                waits += _waits(worker)
                if waits > 5:
                    break
            assert waits > 5, "the migration never waited for the reader"
            assert thread.is_alive()
            reader.rollback()
    with Database(empty_database_url) as database:
        database.check_schema()
        ((stored, signed),) = rows(
            database,
            "SELECT count(*) AS stored, count(*) FILTER (WHERE signs = binary_quantize(embedding))"
            " AS signed"
            " FROM chunk_embeddings",
        )
        assert stored == signed == 1000 + n + 1


def _waits(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").fetchone()
    return bool(row and row[0])


def test_a_table_that_is_never_free_is_told_and_nothing_is_half_done(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(migrations, "LOCK_PATIENCE_SECONDS", 0.5)
    migrate(empty_database_url, "0003")
    with psycopg.connect(empty_database_url) as reader:
        reader.execute("SELECT FROM chunk_embeddings")
        with pytest.raises(TransientError, match="pg_stat_activity"):
            migrate(empty_database_url)
        version = reader.execute("SELECT version_num FROM embedding_assets_version").fetchone()
        assert version == ("0003",)
    assert migrate(empty_database_url)


# What a table is, whatever its columns' and constraints' order of making.
SHAPE = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
       pg_get_expr(adbin, adrelid), attacl::text
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'chunk_embeddings'::regclass AND attnum > 0
UNION ALL
SELECT conname, pg_get_constraintdef(oid), convalidated, '', '', NULL, NULL
FROM pg_constraint WHERE conrelid = 'chunk_embeddings'::regclass
UNION ALL
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid, '', '', NULL, NULL
FROM pg_index WHERE indrelid = 'chunk_embeddings'::regclass
UNION ALL
SELECT pg_get_serial_sequence('chunk_embeddings', 'id'), relowner::regrole::text, true, '', '',
       NULL, relacl::text
FROM pg_class WHERE oid = 'chunk_embeddings'::regclass
ORDER BY 1, 2
"""
IN_PLACE = """
ALTER TABLE chunk_embeddings
    ADD COLUMN signs bit varying NOT NULL GENERATED ALWAYS AS (binary_quantize(embedding)) STORED;
CREATE INDEX chunk_embeddings_model_id ON chunk_embeddings (model, id);
"""


def test_the_copy_of_the_vectors_is_the_table_with_a_column_more(empty_database_url: str) -> None:
    migrate(empty_database_url, "0003")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(STORE, [1, 12])
        connection.execute("DROP ROLE IF EXISTS copied_to; CREATE ROLE copied_to")
        connection.execute(
            "GRANT SELECT, INSERT, UPDATE (created_at) ON chunk_embeddings TO copied_to"
        )
        with connection.transaction(force_rollback=True):
            connection.execute(IN_PLACE)
            wanted = connection.execute(SHAPE).fetchall()
        before = connection.execute("SELECT * FROM chunk_embeddings ORDER BY id").fetchall()
        migrate(empty_database_url, "0004")
        assert connection.execute(SHAPE).fetchall() == wanted
        after = connection.execute("SELECT * FROM chunk_embeddings ORDER BY id").fetchall()
        assert [row[:-1] for row in after] == before
        connection.execute(STORE, [13, 13])
        assert connection.execute("SELECT max(id) FROM chunk_embeddings").fetchone() == (13,)
        connection.execute("DROP OWNED BY copied_to; DROP ROLE copied_to")


def test_an_interrupted_copy_of_the_vectors_goes_on_and_knows_what_happened_meanwhile(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_database_url, "0003")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(STORE, [1, 12_000])
    begun = []

    class KilledError(Exception):
        pass

    ours = migrations._begin_before

    @contextmanager
    def killed(engine: Any, step: Any) -> Iterator[Any]:
        begun.append(step.revision)
        if len(begun) == 4:  # after the table was made and two batches were copied
            raise KilledError
        with ours(engine, step) as connection:
            yield connection

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_begin_before", killed)
        with pytest.raises(KilledError):
            migrate(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        copied = connection.execute("SELECT count(*) FROM chunk_embeddings_signed").fetchone()
        assert copied == (10_000,)
        # Vectors are swept; one of them is embedded again, and one is new.
        connection.execute("DELETE FROM chunk_embeddings WHERE id <= 10 OR id = 10000")
        connection.execute(STORE, [7, 7])
        connection.execute(STORE, [20_000, 20_000])
        assert migrate(empty_database_url)
        found = connection.execute(
            "SELECT count(*), count(DISTINCT content_hash), max(id),"
            " bool_and(signs = binary_quantize(embedding)),"
            " to_regclass('chunk_embeddings_signed') FROM chunk_embeddings"
        ).fetchone()
        # What was swept between the two is in the copy still, for the next sweep.
        assert found == (12_001, 12_001, 12_002, True, None)
