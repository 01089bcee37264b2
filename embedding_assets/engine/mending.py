"""Prepares recordings that an inspection found broken for being embedded again."""

from collections.abc import Sequence

from embedding_assets.engine.database import Connection, sql


def prepare_mending(connection: Connection, recording_ids: Sequence[str]) -> list[str]:
    """Removes what would leave these recordings broken even after they are embedded again.

    Chunks without a queue row get one. Vectors that no search can use are deleted, because a text
    with a stored vector is not embedded. A run that is about to publish such a vector fails its
    attempt, as after a sweep, and the next attempt embeds the text. Returns the ids of those that
    wait in the queue now; `queue.retry` makes the others due.
    """
    ids = list(recording_ids)
    sql.queue_what_is_there(connection, recording_ids=ids)
    sql.drop_bad_vectors(connection, recording_ids=ids)
    return [row.recording_id for row in sql.waiting_of(connection, recording_ids=ids)]
