"""Compares what should be there with what is, some recordings at a time, round after round."""

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.transcripts import says_something

RECORDINGS_AT_ONCE = 2_000
CHUNKS_AT_ONCE = 10_000  # whose vectors are read: some 60 MB at 1536 dimensions
ORPHANS_AT_ONCE = 1_000

_EMPTY = "published without chunks, though its transcript has text"


def inspect(
    database: Database,
    *,
    recordings: int = RECORDINGS_AT_ONCE,
    chunks: int = CHUNKS_AT_ONCE,
) -> None:
    """Looks at the next recordings, and again at those where something was wrong before.

    What is wrong is kept in `integrity_findings` until a later look finds it mended; where the
    look ended is kept in `integrity_progress`, for the next one to go on from. Costs the same at
    any number of chunks.
    """
    database.retrying(lambda c: _inspect(c, recordings, chunks))


def _inspect(connection: Connection, recordings: int, chunks: int) -> None:
    after = sql.hold_integrity_progress(connection).looked_until or ""
    window = list(
        sql.next_recordings(connection, after=after, recordings=recordings, chunks=chunks)
    )
    ids = [row.recording_id for row in window]
    is_cut = len(ids) == recordings or sum(row.chunk_count for row in window) >= chunks
    until = ids[-1] if is_cut else None
    orphans = sql.orphans(connection, after=after, until=until, limit=ORPHANS_AT_ONCE)
    looked_at = {
        *ids,
        *(row.recording_id for row in orphans),
        *(row.recording_id for row in sql.found_before(connection)),
    }
    found = _problems(connection, sorted(looked_at))
    sql.keep_findings(connection, recording_ids=list(found), problems=list(found.values()))
    sql.forget_findings(connection, recording_ids=sorted(looked_at - found.keys()))
    sql.save_integrity_progress(
        connection,
        looked_until=until,
        recordings=len(looked_at),
        chunks=sum(row.chunk_count for row in window),
    )


def _problems(connection: Connection, recording_ids: list[str]) -> dict[str, str]:
    """What is wrong, by recording."""
    broken = sql.broken_recordings(connection, recording_ids=recording_ids)
    found = {row.recording_id: row.problem for row in broken}
    empty = [
        row.recording_id for row in sql.published_empty(connection, recording_ids=recording_ids)
    ]
    found.update((id, _EMPTY) for id in empty if id not in found and says_something(connection, id))
    return found
