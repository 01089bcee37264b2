"""Makes a recording that is not as it was published ready to be embedded again."""

from collections.abc import Sequence

from embedding_assets.engine.database import Connection, sql


def prepare_mending(connection: Connection, recording_ids: Sequence[str]) -> list[str]:
    """Clears away what would keep these recordings broken though they are embedded again.

    Chunks without a queue row get one, and a vector that no search can use is deleted, as a stored
    one is never embedded again. A run that is about to publish such a vector fails its attempt, as
    after a sweep, and the next one embeds it. Gives the ids of those that wait in the queue now;
    `queue.retry` makes the others due.
    """
    ids = list(recording_ids)
    sql.queue_what_is_there(connection, recording_ids=ids)
    sql.drop_bad_vectors(connection, recording_ids=ids)
    return [row.recording_id for row in sql.waiting_of(connection, recording_ids=ids)]
