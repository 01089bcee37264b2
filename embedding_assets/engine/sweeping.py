"""Deletes vectors that no chunk refers to any more, such as those of deleted calls."""

from datetime import timedelta
from functools import partial

from embedding_assets.engine.database import Connection, Database, sql

GRACE = timedelta(days=1)  # younger ones may belong to a recording that is not published yet
WINDOW = 5_000  # ids looked at in one transaction


def sweep(database: Database, *, grace: timedelta = GRACE) -> int:
    """Looks at all vectors in short transactions; returns how many it deleted."""
    last = database.retrying(sql.last_vector_id)
    return sum(
        database.retrying(partial(_sweep_range, after=after, until=after + WINDOW, grace=grace))
        for after in range(0, last, WINDOW)
    )


def _sweep_range(connection: Connection, *, after: int, until: int, grace: timedelta) -> int:
    rows = sql.lock_unreferenced(connection, after=after, until=until, grace=grace)
    ids = [row.id for row in rows]
    return int(sql.delete_unreferenced(connection, ids=ids)) if ids else 0
