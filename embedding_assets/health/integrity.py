"""Inspects published recordings: compares what should be stored with what is, in endless rounds."""

import time
from functools import partial
from typing import Any, NamedTuple

from embedding_assets.engine import queue
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import StatementTimeoutError
from embedding_assets.engine.transcripts import current_version, says_something
from embedding_assets.health.statements import sql

RECORDINGS_AT_ONCE = 2_000
CHUNKS_AT_ONCE = 2_500  # whose vectors are read: some 15 MB at 1536 dimensions
SECONDS = 1.0  # after this time an inspection begins no further window
LOOKED_AT_AGAIN = 10  # one broken recording is inspected again for so many others

_EMPTY = "published without chunks, though its transcript has text"


class _Seen(NamedTuple):
    """What a look at some recordings found."""

    recordings: int
    chunks: int
    until: str | None  # the last recording of the window; None: the round is over


def inspect(
    database: Database,
    *,
    recordings: int = RECORDINGS_AT_ONCE,
    chunks: int = CHUNKS_AT_ONCE,
    seconds: float = SECONDS,
) -> None:
    """Inspects the next recordings, and some of those that were found broken before.

    First it queues what change tracking missed: workers do that too, but none starts while nothing
    is due. Then it inspects window after window of recordings, each in a short transaction, until
    the time is spent or the round is over. Problems are kept in `integrity_findings` until a later
    inspection finds them mended; the position is kept in `integrity_progress`, and the next
    inspection continues there. So the cost does not grow with the number of chunks. A window that
    another inspection holds is left to that one.

    Args:
        database: the application's.
        recordings: the most recordings of a window.
        chunks: the most chunks of a window, but for its last recording, which is looked at whole.
        seconds: when to stop beginning windows.

    Raises:
        EmbeddingAssetsError: a look was not taken; the next inspection starts with it.
    """
    ends = time.monotonic() + seconds
    queue.reconcile(database)
    seen: _Seen | None = None
    while True:
        try:
            seen = database.retrying(
                partial(_look, recordings=recordings, chunks=chunks, so_far=seen)
            )
        except StatementTimeoutError:
            if recordings == chunks == 1:
                raise
            recordings, chunks = max(1, recordings // 4), max(1, chunks // 4)
            continue
        if seen is None or seen.until is None or time.monotonic() > ends:
            return


def _look(
    connection: Connection, *, recordings: int, chunks: int, so_far: _Seen | None
) -> _Seen | None:
    """Looks at the next window; None: another inspection does."""
    progress = sql.hold_integrity_progress(connection)
    if progress is None:
        return None
    window = list(
        sql.next_window(
            connection, after=progress.looked_until or "", recordings=recordings, chunks=chunks
        )
    )
    ids = {row.recording_id for row in window}
    if so_far is None:
        again = sql.found_before(
            connection,
            recordings=max(1, recordings // LOOKED_AT_AGAIN),
            chunks=max(1, chunks // LOOKED_AT_AGAIN),
        )
        ids.update(row.recording_id for row in again)
        so_far = _Seen(0, 0, None)
    looked_at = list(sql.look_at(connection, recording_ids=sorted(ids)))
    problems = {row.recording_id: _problem(connection, row) for row in looked_at}
    found = {id: problem for id, problem in sorted(problems.items()) if problem is not None}
    sql.keep_findings(connection, recording_ids=list(found), problems=list(found.values()))
    sql.forget_findings(connection, recording_ids=sorted(ids - found.keys()))
    seen = _Seen(
        recordings=so_far.recordings + len(ids),
        chunks=so_far.chunks + sum(row.chunks for row in looked_at),
        until=window[0].until if window else None,
    )
    sql.save_integrity_progress(
        connection, recordings=seen.recordings, chunks=seen.chunks, looked_until=seen.until
    )
    return seen


def _problem(connection: Connection, row: Any) -> str | None:
    """What is wrong with a recording that was looked at."""
    if (
        row.problem is None
        and row.is_published_empty
        and says_something(connection, row.recording_id)
    ):
        # Compared after the text was read: text that came in after the publication is a change
        # that waits to be embedded, and nothing is broken.
        version = current_version(connection, row.recording_id)
        return _EMPTY if version == row.transcript_version else None
    problem: str | None = row.problem
    return problem


def found_broken(connection: Connection) -> list[str]:
    """Ids of all recordings that inspections found broken, longest ago first."""
    return [row.recording_id for row in sql.oldest_findings(connection, limit=None)]
