"""Which recordings there are, and what change tracking missed, in tables of many kinds."""

from datetime import UTC, datetime

import pytest

from embedding_assets.engine import queue
from embedding_assets.engine.database import Database
from embedding_assets.engine.transcripts import current_version, source_ids
from embedding_assets_tests.calls import rows

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
ADD = """
    INSERT INTO fathom_calls (recording_id, title, recorded_at, created_at) VALUES
        ('new', 'A call', '2026-03-01 00:00+00', '2020-01-01'),
        ('old', 'A call', '2026-02-28 23:59+00', '2026-06-01'),
        ('dateless', 'A call', NULL, '2026-06-01')
"""


def _execute(database: Database, *statements: str) -> None:
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(statement)


def _since(database: Database) -> set[str]:
    with database.transaction() as connection:
        return source_ids(connection, SINCE)


def test_the_day_itself_counts_and_no_date_does_not(database: Database) -> None:
    _execute(database, ADD)
    assert _since(database) == {"new"}
    with database.transaction() as connection:
        assert source_ids(connection) == {"new", "old", "dateless"}


@pytest.mark.parametrize("kind", ["text", "date", "timestamp"])
def test_dates_may_be_of_other_types(database: Database, kind: str) -> None:
    _execute(
        database,
        "SET LOCAL TimeZone = 'UTC'",
        ADD,
        f"ALTER TABLE fathom_calls ALTER recorded_at TYPE {kind} USING recorded_at::{kind}",
    )
    assert _since(database) == {"new"}


def test_where_there_is_no_column_for_the_date_the_row_s_counts(database: Database) -> None:
    _execute(database, ADD, "ALTER TABLE fathom_calls DROP recorded_at")
    assert _since(database) == {"old", "dateless"}


def test_without_any_date_no_call_is_of_late(database: Database) -> None:
    _execute(
        database,
        ADD,
        "ALTER TABLE fathom_calls DROP recorded_at, DROP created_at",
    )
    assert _since(database) == set()


def test_ids_that_are_numbers_come_as_text(database: Database) -> None:
    _execute(
        database,
        "DROP TABLE fathom_calls CASCADE",
        "CREATE TABLE fathom_calls (recording_id bigint, title text, recorded_at timestamptz)",
        "INSERT INTO fathom_calls VALUES (7, 'A call', '2026-04-01'), (8, 'A call', '2026-01-01')",
    )
    assert _since(database) == {"7"}


# What change tracking missed.

UNTRACKED = "SET LOCAL session_replication_role = replica"  # no trigger sees what is done
THREE = """
    INSERT INTO fathom_calls (recording_id, title)
    SELECT 'r' || n, 'A call' FROM generate_series(1, 3) AS n
"""
PUBLISHED = """
    UPDATE embedding_queue SET status = 'completed', completed_at = now(), chunk_count = 0,
        token_count = 0, transcript_version = %s
    WHERE recording_id = %s
"""
ADDED = "INSERT INTO fathom_calls (recording_id, title) VALUES ('late', 'A call')"
DELETED = "DELETE FROM fathom_calls WHERE recording_id = 'r2'"


@pytest.fixture
def published(database: Database) -> Database:
    """Three calls that are published as they are."""
    _execute(database, THREE)
    with database.transaction() as connection:
        for name in ("r1", "r2", "r3"):
            connection.execute(PUBLISHED, [current_version(connection, name), name])
    return database


def _due(database: Database) -> int:
    with database.transaction(snapshot=True) as connection:
        return queue.work_waiting(connection).due


def _pending(database: Database) -> set[str]:
    found = rows(database, "SELECT recording_id FROM embedding_queue WHERE status = 'pending'")
    return {row.recording_id for row in found}


@pytest.mark.parametrize(
    ("missed", "ids"),
    [((ADDED,), {"late"}), ((DELETED,), {"r2"}), ((ADDED, DELETED), {"late", "r2"})],
)
def test_in_tables_without_triggers_all_is_noticed_and_queued(
    published: Database, missed: tuple[str, ...], ids: set[str]
) -> None:
    _execute(published, "DROP TRIGGER embedding_assets_insert ON fathom_calls")
    assert _due(published) == 0
    _execute(published, UNTRACKED, *missed)
    assert _due(published) == len(ids)
    queue.reconcile(published)
    assert _pending(published) == ids
    assert _due(published) == len(ids)


@pytest.mark.parametrize(("missed", "ids"), [((ADDED,), {"late"}), ((DELETED,), {"r2"})])
def test_what_went_past_the_triggers_is_noticed(
    published: Database, missed: tuple[str, ...], ids: set[str]
) -> None:
    _execute(published, UNTRACKED, *missed)
    assert _due(published) == len(ids)
    queue.reconcile(published)
    assert _pending(published) == ids


def test_a_worker_finds_a_call_that_took_another_ones_place_past_the_triggers(
    published: Database,
) -> None:
    _execute(published, UNTRACKED, ADDED, DELETED)
    assert _due(published) == 0  # as many calls as before: a tick does not compare them
    queue.reconcile(published)
    assert _pending(published) == {"late", "r2"}


def test_a_deletion_that_is_queued_already_is_counted_once(published: Database) -> None:
    _execute(published, DELETED)
    assert _pending(published) == {"r2"}
    assert _due(published) == 1
