import pytest

from embedding_assets.engine.database import Connection, Database


def _add_call(connection: Connection, recording_id: str, texts: list[str]) -> None:
    connection.execute(
        "INSERT INTO fathom_calls (recording_id, title) VALUES (%s, 'call')", [recording_id]
    )
    for position, text in enumerate(texts):
        connection.execute(
            "INSERT INTO fathom_transcripts (recording_id, position, text) VALUES (%s, %s, %s)",
            [recording_id, position, text],
        )


def _settle(connection: Connection) -> None:
    """Everything is completed, as if it had been published."""
    connection.execute(
        "UPDATE embedding_queue SET status = 'completed', completed_at = now(),"
        " transcript_version = '', chunk_count = 1, token_count = 1"
    )


def _pending(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT recording_id FROM embedding_queue WHERE status = 'pending' ORDER BY 1"
    )
    return [row.recording_id for row in rows]


CHANGES = {
    "a new segment": "INSERT INTO fathom_transcripts (recording_id, position, text)"
    " VALUES ('a', 9, 'more')",
    "an edit": "UPDATE fathom_transcripts SET edited_text = 'x'"
    " WHERE recording_id = 'a' AND position = 0",
    "a corrected text": "UPDATE fathom_transcripts SET text = 'x'"
    " WHERE recording_id = 'a' AND position = 0",
    "a deletion mark": "UPDATE fathom_transcripts SET is_deleted = true WHERE recording_id = 'a'",
    "a deleted segment": "DELETE FROM fathom_transcripts WHERE recording_id = 'a' AND position = 1",
    "a new title": "UPDATE fathom_calls SET title = 'other' WHERE recording_id = 'a'",
    "a new date": "UPDATE fathom_calls SET recorded_at = now() WHERE recording_id = 'a'",
    "a deleted call": "DELETE FROM fathom_calls WHERE recording_id = 'a'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_its_recording_due_and_no_other(database: Database, change: str) -> None:
    with database.transaction() as connection:
        _add_call(connection, "a", ["one", "two"])
        _add_call(connection, "b", ["three"])
        _settle(connection)
        connection.execute(CHANGES[change])
        assert _pending(connection) == ["a"]


def test_a_moved_segment_makes_both_recordings_due(database: Database) -> None:
    with database.transaction() as connection:
        _add_call(connection, "a", ["one", "two"])
        _add_call(connection, "b", ["three"])
        _add_call(connection, "c", ["four"])
        _settle(connection)
        connection.execute(
            "UPDATE fathom_transcripts SET recording_id = 'b', position = 5"
            " WHERE recording_id = 'a' AND position = 1"
        )
        assert _pending(connection) == ["a", "b"]


NO_CHANGES = {
    "the same text again": "UPDATE fathom_transcripts SET text = text",
    "a duration": "UPDATE fathom_calls SET duration = 5",
    "an e-mail address": "UPDATE fathom_transcripts SET speaker_email = 'a@example.com'",
}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_is_not_embedded_makes_nothing_due(database: Database, change: str) -> None:
    with database.transaction() as connection:
        _add_call(connection, "a", ["one"])
        _settle(connection)
        connection.execute(NO_CHANGES[change])
        assert _pending(connection) == []


def test_a_bulk_change_queues_each_recording_once(database: Database) -> None:
    with database.transaction() as connection:
        for recording_id in ("a", "b"):
            _add_call(connection, recording_id, ["one", "two", "three"])
        _settle(connection)
        connection.execute("UPDATE fathom_transcripts SET text = text || '!'")
        assert _pending(connection) == ["a", "b"]


def test_a_change_to_a_dead_letter_starts_afresh(database: Database) -> None:
    with database.transaction() as connection:
        _add_call(connection, "a", ["one"])
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, recoveries = 2,"
            " error_kind = 'transient', last_error = 'x'"
        )
        connection.execute("UPDATE fathom_transcripts SET edited_text = 'mended'")
        row = connection.execute("SELECT status, attempts, recoveries FROM embedding_queue")
        assert row.fetchall() == [("pending", 0, 0)]
