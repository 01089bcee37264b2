"""Writes recordings into the recorders' tables: an upsert, one transaction for each recording."""

from enum import StrEnum

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.model import Recording
from embedding_assets.recorders.statements import sql


class Upserted(StrEnum):
    """The outcome of storing a recording."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"


def upsert(database: Database, recording: Recording) -> Upserted:
    """Updates the tables to what the recorder says, writing only the rows that differ.

    A person's edits (`edited_text`, `is_deleted`) stay; change tracking queues the recording if
    anything that is embedded changed.
    """
    return database.retrying(lambda connection: _upsert(connection, recording))


def _upsert(connection: Connection, recording: Recording) -> Upserted:
    changed = sql.upsert_call(
        connection,
        recording_id=recording.recording_id,
        title=recording.title,
        recorded_at=recording.recorded_at,
        duration=recording.duration_seconds,
        url=recording.url,
        recorded_by_name=recording.recorded_by_name,
        recorded_by_email=recording.recorded_by_email,
        source_platform=recording.source_platform,
    )
    changed += sql.upsert_segments(
        connection,
        recording_id=recording.recording_id,
        positions=[s.position for s in recording.segments],
        speakers=[s.speaker for s in recording.segments],
        emails=[s.speaker_email for s in recording.segments],
        starts=[s.start_seconds for s in recording.segments],
        ends=[s.end_seconds for s in recording.segments],
        texts=[s.text for s in recording.segments],
    )
    changed += sql.delete_later_segments(
        connection,
        recording_id=recording.recording_id,
        positions=[s.position for s in recording.segments],
    )
    return Upserted.IMPORTED if changed else Upserted.UNCHANGED
