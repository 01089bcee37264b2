"""The queue: which recordings are due, and who is working on them."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from embedding_assets.engine.database import Connection, Database, sql

LEASE = timedelta(minutes=5)
MAX_ATTEMPTS = 3
CLAIM_SIZE = 20  # recordings taken at once: few, so that racing workers share evenly

_DIED = "the run that worked on it died: its lease ran out"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one recording, held by one run, for one attempt."""

    recording_id: str
    attempts: int  # failed ones before this
    attempt_id: uuid.UUID = field(default_factory=uuid.uuid4)


class Claims:
    """What one run holds: takes leases, renews them, gives them back."""

    def __init__(self, database: Database, run_id: str, lease: timedelta = LEASE) -> None:
        self.run_id = run_id
        self._database = database
        self._lease = lease
        self._renewed = time.monotonic()

    def due(self, *, time_budget: timedelta | None = None) -> Iterator[Claim]:
        """Takes what is due, oldest first, until nothing is or the time budget is spent."""
        started = time.monotonic()
        while time_budget is None or time.monotonic() - started < time_budget.total_seconds():
            claims = self._database.retrying(self._claim_due)
            if not claims:
                return
            yield from claims

    def these(self, recording_ids: Sequence[str]) -> Iterator[Claim | None]:
        """Takes these recordings in whatever state they are.

        What another living run holds is taken when that run is done; None says: not yet.
        """
        remaining = list(dict.fromkeys(recording_ids))
        while remaining:
            held: list[str] = []
            for start in range(0, len(remaining), CLAIM_SIZE):
                ids = remaining[start : start + CLAIM_SIZE]
                claims = self._database.retrying(lambda c, ids=ids: self._claim_these(c, ids))  # type: ignore[misc]
                yield from claims
                taken = {claim.recording_id for claim in claims}
                held.extend(id for id in ids if id not in taken)
            if held:
                yield None
            remaining = held

    def renew(self) -> None:
        """Says that this run is alive, if it has not lately."""
        if time.monotonic() - self._renewed < self._lease.total_seconds() / 5:
            return
        self._database.retrying(
            lambda c: sql.renew_leases(c, run_id=self.run_id, lease=self._lease)
        )
        self._renewed = time.monotonic()

    def release(self) -> None:
        """Gives back everything this run still holds, at no cost to the recordings."""
        self._database.retrying(lambda c: sql.release(c, run_id=self.run_id))

    def _claim_due(self, connection: Connection) -> list[Claim]:
        expire_leases(connection)
        rows = sql.claim_due(connection, run_id=self.run_id, lease=self._lease, limit=CLAIM_SIZE)
        return [Claim(row.recording_id, row.attempts) for row in rows]

    def _claim_these(self, connection: Connection, recording_ids: list[str]) -> list[Claim]:
        expire_leases(connection)
        sql.ensure_queued(connection, recording_ids=recording_ids)
        rows = sql.claim_these(
            connection, run_id=self.run_id, lease=self._lease, recording_ids=recording_ids
        )
        return [Claim(row.recording_id, row.attempts) for row in rows]


def expire_leases(connection: Connection) -> list[str]:
    """Takes back what dead runs held; gives the recordings' ids."""
    rows = sql.expire_leases(connection, max_attempts=MAX_ATTEMPTS, error=_DIED)
    return [row.recording_id for row in rows]


def enqueue_unqueued(connection: Connection) -> int:
    """Queues recordings that have no row yet; gives their number."""
    return int(sql.enqueue_unqueued(connection))


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Recordings by state, and the chunks that completed ones have."""

    by_status: dict[str, int]
    due: int
    chunks: int

    @property
    def recordings(self) -> int:
        """All recordings in the queue, whatever their state."""
        return sum(self.by_status.values())

    @property
    def unfinished(self) -> int:
        """Recordings that the system still means to work on by itself."""
        return sum(self.by_status.get(s, 0) for s in ("pending", "processing", "failed"))


def queue_counts(connection: Connection) -> QueueCounts:
    """Counts the whole queue."""
    rows = list(sql.queue_counts(connection))
    return QueueCounts(
        by_status={row.status: row.recordings for row in rows},
        due=sum(row.due for row in rows),
        chunks=int(sum(row.chunks for row in rows)),
    )


@dataclass(frozen=True, slots=True)
class WorkWaiting:
    """Whether a worker has something to do, and which recordings are being worked on."""

    is_due: bool
    held: frozenset[str]


def work_waiting(connection: Connection) -> WorkWaiting:
    """Looks, without taking anything."""
    return WorkWaiting(
        is_due=bool(sql.anything_due(connection)),
        held=frozenset(row.recording_id for row in sql.held(connection)),
    )
