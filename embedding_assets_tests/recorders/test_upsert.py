from dataclasses import replace

from embedding_assets.engine.database import Database
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.upsert import Upserted, upsert
from embedding_assets_tests.calls import rows

CALL = Recording("a", "A call", [Segment(n, "Ann", f"text {n}") for n in range(5)], "import")


def _settle(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'completed', completed_at = now(),"
            " transcript_version = '', chunk_count = 1, token_count = 1"
        )


def _pending(database: Database) -> int:
    (row,) = rows(database, "SELECT count(*) FROM embedding_queue WHERE status = 'pending'")
    return int(row[0])


def test_importing_again_changes_and_queues_nothing(database: Database) -> None:
    assert upsert(database, CALL).upserted is Upserted.IMPORTED
    _settle(database)
    assert upsert(database, CALL).upserted is Upserted.UNCHANGED
    assert _pending(database) == 0


def test_a_changed_transcript_is_corrected_and_queued(database: Database) -> None:
    upsert(database, CALL)
    _settle(database)
    shorter = replace(CALL, segments=[Segment(0, "Ann", "other"), *CALL.segments[1:3]])
    assert upsert(database, shorter).upserted is Upserted.IMPORTED
    assert _pending(database) == 1
    texts = rows(database, "SELECT text FROM fathom_transcripts ORDER BY position")
    assert texts == [("other",), ("text 1",), ("text 2",)]


def test_a_persons_edits_survive_an_import(database: Database) -> None:
    upsert(database, CALL)
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET edited_text = 'mine' WHERE position = 1")
    upsert(database, replace(CALL, title="New title"))
    assert rows(database, "SELECT edited_text FROM fathom_transcripts WHERE position = 1") == [
        ("mine",)
    ]


def test_what_the_recorder_does_not_say_stays(database: Database) -> None:
    upsert(database, replace(CALL, url="https://example.com/1", duration_seconds=60.0))
    assert upsert(database, CALL).upserted is Upserted.UNCHANGED
    assert rows(database, "SELECT url, duration FROM fathom_calls") == [
        ("https://example.com/1", 60.0)
    ]
