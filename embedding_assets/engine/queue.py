"""The queue: which recordings are due, and who is working on them."""

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import ErrorKind
from embedding_assets.engine.heartbeats import require_alive, take_for_dead
from embedding_assets.engine.transcripts import current_version

LEASE = timedelta(minutes=5)
MAX_ATTEMPTS = 3
MAX_RECOVERIES = 3  # of a dead letter; then it waits for a person
RECOVERED_AT_ONCE = 5
RECONCILED_AT_ONCE = 500
CLAIM_SIZE = 20  # recordings of one claim: few, so that concurrent workers share evenly
SUSPECTS_AT_ONCE = 256  # of what never crashed; a quarter of it for each crash

_DIED = "the run that worked on it died"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one recording, held by one run, for one attempt."""

    recording_id: str
    attempts: int  # failed ones before this
    crashes: int = 0  # of runs that held it among others
    was_refused: bool = False  # by the model, the last time it failed
    # Also the claim's token: what a run held before, it may hold again by another claim.
    attempt_id: uuid.UUID = field(default_factory=uuid.uuid4)


def most_at_once(crashes: int) -> int:
    """How many recordings with this number of crashes one run may claim: 64, 16, 4, then 1.

    The groups get smaller with each crash, so that a recording that kills its process is soon in a
    group of its own, and the others are cleared.
    """
    return max(1, SUSPECTS_AT_ONCE >> 2 * crashes) if crashes else CLAIM_SIZE


class Claims:
    """What one run holds: takes leases, renews them, gives them back.

    Recordings that a crashed run held are in quarantine: they are claimed after all others, those
    with the fewest crashes first, and only by a run that holds nothing else. If that run crashes
    too, one of them is the cause.

    A run whose leases ran out is taken for dead by the run that frees its recordings. It then may
    claim and write nothing more: what claims and renews raises TakenForDeadError.
    """

    def __init__(self, database: Database, run_id: str, lease: timedelta = LEASE) -> None:
        self.run_id = run_id
        self._database = database
        self._lease = lease
        self._renewed = time.monotonic()
        self._held: dict[str, Claim] = {}

    def due(self, *, time_budget: timedelta | None = None) -> Iterator[Claim | None]:
        """Takes what is due, oldest first, until nothing is or the time budget is spent.

        It gives None where the next recordings are in quarantine and this run still holds others:
        the caller ends those first, then asks again.
        """
        started = time.monotonic()
        while time_budget is None or time.monotonic() - started < time_budget.total_seconds():
            claims = self._database.retrying(self._claim_due)
            if claims is None:
                yield None
            elif claims:
                yield from self._hold(claims)
            else:
                return

    def these(self, recording_ids: Sequence[str]) -> Iterator[Claim | None]:
        """Takes these recordings in whatever state they are.

        What another living run holds is taken when that run is done; None says: not yet.
        """
        remaining = list(dict.fromkeys(recording_ids))
        while remaining:
            left: list[str] = []
            for start in range(0, len(remaining), CLAIM_SIZE):
                ids = remaining[start : start + CLAIM_SIZE]
                claims = self._database.retrying(partial(self._claim_these, recording_ids=ids))
                yield from self._hold(claims)
                taken = {claim.recording_id for claim in claims}
                left.extend(id for id in ids if id not in taken)
            if left:
                yield None
            remaining = left

    def dead_letters(self) -> Iterator[Claim]:
        """Takes the oldest dead letters for one recovery each, as many as one round allows."""
        yield from self._hold(self._database.retrying(self._claim_dead_letters))

    def end(self, claim: Claim) -> None:
        """Notes that this run holds the recording no longer."""
        # It may be due again, and claimed again, since its attempt was written down.
        if self._held.get(claim.recording_id) == claim:
            del self._held[claim.recording_id]

    def wait_for_batch(self, claim: Claim, until: datetime) -> None:
        """Gives the recording back until then; no attempt is counted."""
        self._database.retrying(
            lambda c: sql.wait_for_batch(
                c,
                recording_id=claim.recording_id,
                run_id=self.run_id,
                claim_id=claim.attempt_id,
                until=until,
            )
        )
        self.end(claim)

    def take_over(self, dead_run: str) -> None:
        """Frees what a run holds that is known to have ended, without waiting for its leases."""
        self._database.retrying(lambda c: self._expire(c, dead_run))

    def renew(self) -> None:
        """Says that this run is alive, if it has not lately."""
        if time.monotonic() - self._renewed < self._lease.total_seconds() / 5:
            return
        self._database.retrying(self._renew)
        self._renewed = time.monotonic()

    def require_alive(self, connection: Connection) -> None:
        """Holds that nobody took this run for dead, or raises TakenForDeadError."""
        require_alive(connection, self.run_id)

    def release(self) -> None:
        """Gives back everything this run still holds, at no cost to the recordings."""
        self._database.retrying(self._release, any_schema=True)
        self._held.clear()

    def _release(self, connection: Connection) -> None:
        sql.release(connection, run_id=self.run_id, max_attempts=MAX_ATTEMPTS)
        sql.note_unreleased(connection, run_id=self.run_id)

    def _renew(self, connection: Connection) -> None:
        self.require_alive(connection)
        sql.renew_leases(connection, run_id=self.run_id, lease=self._lease)

    def _hold(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Notes what this run holds, when the claim is committed and not before."""
        self._held.update((claim.recording_id, claim) for claim in claims)
        return claims

    def _must_wait(self, crashes: int) -> bool:
        """Whether this run must end what it holds before it may claim more."""
        in_quarantine = bool(crashes) or any(claim.crashes for claim in self._held.values())
        return bool(self._held) and in_quarantine

    def _expire(self, connection: Connection, dead_run: str | None = None) -> None:
        freed = sql.expire_claims(
            connection,
            dead_run=dead_run,
            run_id=self.run_id,
            max_attempts=MAX_ATTEMPTS,
            error=_DIED,
        )
        dead = {row.run_id for row in freed} | ({dead_run} if dead_run else set())
        if dead:
            take_for_dead(connection, dead)

    def _claim_dead_letters(self, connection: Connection) -> list[Claim]:
        self.require_alive(connection)
        crashes = sql.fewest_crashes_of_dead_letters(connection, max_recoveries=MAX_RECOVERIES)
        if crashes is None:
            return []
        rows = sql.claim_dead_letters(
            connection,
            run_id=self.run_id,
            lease=self._lease,
            max_recoveries=MAX_RECOVERIES,
            crashes=crashes,
            limit=min(RECOVERED_AT_ONCE, most_at_once(crashes)),
        )
        return _claims(rows)

    def _claim_due(self, connection: Connection) -> list[Claim] | None:
        """The claims; None where something is due that this run may not hold beside the rest."""
        self.require_alive(connection)
        self._expire(connection)
        crashes = sql.fewest_crashes_due(connection)
        if crashes is None:
            return []
        if self._must_wait(crashes):
            return None
        rows = sql.claim_due(
            connection,
            run_id=self.run_id,
            lease=self._lease,
            crashes=crashes,
            limit=most_at_once(crashes),
        )
        return _claims(rows)

    def _claim_these(self, connection: Connection, recording_ids: list[str]) -> list[Claim]:
        self.require_alive(connection)
        self._expire(connection)
        sql.ensure_queued(connection, recording_ids=recording_ids)
        crashes = sql.fewest_crashes_of(connection, recording_ids=recording_ids)
        if crashes is None or self._must_wait(crashes):
            return []
        rows = sql.claim_these(
            connection,
            run_id=self.run_id,
            lease=self._lease,
            recording_ids=recording_ids,
            crashes=crashes,
            limit=most_at_once(crashes),
        )
        return _claims(rows)


def batch_deadline(connection: Connection, model: str, hashes: Sequence[bytes]) -> datetime | None:
    """Until when the last batch is waited for that has any of these texts; None: none has."""
    found = sql.in_open_batches(connection, model=model, hashes=list(hashes)) if hashes else ()
    return max((row.deadline for row in found), default=None)


def _claims(rows: Iterable[Any]) -> list[Claim]:
    return [
        Claim(
            row.recording_id,
            attempts=row.attempts,
            crashes=row.crashes,
            attempt_id=row.claim_id,
            was_refused=row.error_kind == ErrorKind.INVALID_INPUT,
        )
        for row in rows
    ]


def reconcile(database: Database) -> None:
    """Queues what change tracking missed: never queued, deleted, or changed without a trigger.

    Comparing every transcript would take long, so each call compares those that were not compared
    for longest, a bounded number of them.
    """
    database.retrying(sql.enqueue_unqueued)
    database.retrying(_enqueue_deleted)
    database.retrying(_enqueue_changed)


def _enqueue_deleted(connection: Connection) -> None:
    gone = [row.recording_id for row in sql.deleted_calls(connection)]
    enqueue_recordings(connection, gone)


def _enqueue_changed(connection: Connection) -> None:
    rows = list(sql.least_recently_reconciled(connection, limit=RECONCILED_AT_ONCE))
    changed = [
        row.recording_id
        for row in rows
        if current_version(connection, row.recording_id) != row.transcript_version
    ]
    enqueue_recordings(connection, changed)
    sql.mark_reconciled(connection, recording_ids=[row.recording_id for row in rows])


def retry(connection: Connection, recording_ids: Sequence[str], *, force: bool) -> list[str]:
    """Makes failed recordings and dead letters due now; gives the ids of those that are.

    With `force`, also dead letters that wait for a person, and what is published already.
    """
    rows = sql.retry(
        connection,
        recording_ids=list(recording_ids),
        force=force,
        max_recoveries=MAX_RECOVERIES,
    )
    return sorted(row.recording_id for row in rows)


def enqueue_recordings(connection: Connection, recording_ids: Sequence[str]) -> None:
    """Makes these recordings due now, as a change to their transcript would."""
    sql.enqueue_recordings(connection, recording_ids=list(recording_ids))


def dead_letter_ids(connection: Connection) -> list[str]:
    """All dead letters, those that have waited longest first."""
    return [row.recording_id for row in sql.dead_letters(connection)]


def left_undone(
    connection: Connection, run_id: str, recording_ids: Sequence[str] | None
) -> list[str]:
    """What an ended run did not finish, of the recordings it was for (None: a worker's)."""
    if recording_ids is None:
        rows = sql.left_undone(connection, run_id=run_id)
    else:
        rows = sql.still_undone(connection, recording_ids=list(recording_ids), run_id=run_id)
    return [row.recording_id for row in rows]


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
    """How much a worker would find, and who is working on what."""

    due: int
    held: frozenset[str]  # recordings
    holders: frozenset[str]  # runs


def work_waiting(connection: Connection) -> WorkWaiting:
    """Looks, without taking anything."""
    held = list(sql.held(connection))
    return WorkWaiting(
        due=int(sql.count_due(connection)) + _missed(connection),
        held=frozenset(row.recording_id for row in held),
        holders=frozenset(row.claimed_by for row in held),
    )


def _missed(connection: Connection) -> int:
    """Recordings that change tracking missed: never queued, or their call deleted.

    To compare all calls with the queue takes the longest part of a tick, so the numbers of the two
    decide first whether it is needed.
    """
    there = sql.tracking(connection)
    if there.is_tracked and there.calls == there.queued:
        return 0
    unqueued = int(sql.count_unqueued(connection))
    has_deleted = there.queued > there.calls - unqueued
    return unqueued + (int(sql.count_deleted(connection)) if has_deleted else 0)


def recoverable_dead_letters(connection: Connection) -> int:
    """Dead letters that a recovery would take now."""
    return int(sql.count_recoverable(connection, max_recoveries=MAX_RECOVERIES))
