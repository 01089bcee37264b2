"""Which runs are alive: each says so from a thread, whatever its other threads are busy with."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import EmbeddingAssetsError, TakenForDeadError

BEATS_A_LEASE = 5


@contextlib.contextmanager
def beating(
    connect: Callable[[], AbstractContextManager[Database]],
    run_id: str,
    lease: timedelta,
    *,
    was_ended: Callable[[], bool],
) -> Iterator[None]:
    """Tells the database five times a lease that this run is alive, while the block goes on.

    Each time over a connection of its own: one held open for this would be idle nearly always. Once
    `was_ended`, which must not raise, says that the run counts as ended, it is taken for dead, so
    that it ends indeed.
    """

    def beat(ended: threading.Event) -> None:
        while True:
            # While the database is away, the run's own work says so.
            with contextlib.suppress(EmbeddingAssetsError), connect() as database:
                with database.transaction() as connection:
                    sql.beat(connection, run_id=run_id)
                    sql.forget_beats(connection)
                if was_ended():  # who is asked may take a while
                    with database.transaction() as connection:
                        take_for_dead(connection, [run_id])
            if ended.wait(lease.total_seconds() / BEATS_A_LEASE):
                return

    with meanwhile(beat):
        yield


def take_for_dead(connection: Connection, run_ids: Collection[str]) -> None:
    """Lets these runs claim and write nothing more, should they live after all."""
    sql.take_for_dead(connection, run_ids=list(run_ids))


def require_alive(connection: Connection, run_id: str) -> None:
    """Holds that nobody took this run for dead.

    Raises:
        TakenForDeadError: somebody did, for instance as its process was frozen for a lease.
    """
    if sql.is_taken_for_dead(connection, run_id=run_id):
        raise TakenForDeadError(
            "this run was taken for dead, as it was ended elsewhere, or its leases ran out: others"
            " go on with what it held, and it writes nothing more"
        )


def silent_runs(
    connection: Connection, run_ids: Sequence[str], lease: timedelta
) -> Mapping[str, datetime | None]:
    """Those of these runs that hold nothing and said nothing for a lease, and when they last did.

    None: this run has never said anything.
    """
    rows = sql.silent_runs(connection, run_ids=list(run_ids), lease=lease)
    return {row.run_id: row.beaten_at for row in rows}
