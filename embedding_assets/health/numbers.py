"""What health is judged by: one count of the whole tables, and the worst few of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.queue import MAX_ATTEMPTS, MAX_RECOVERIES
from embedding_assets.health.statements import sql

WORST = 3  # items that a finding names
DEAD_LETTERS = 10  # dead letters shown with their errors
# So many dead letters without any publication between them: the cause is not in the recordings.
GIVEN_UP_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Numbers:
    """What `health_numbers` counted, by its names; times are aware, costs in US dollars."""

    checked_at: datetime
    pending: int
    in_batches: int  # recordings that wait for the answers of a batch
    processing: int
    completed: int
    failed: int
    dead_letters: int
    waiting_for_person: int  # dead letters that used up their recoveries
    recoverable_since: datetime | None  # since when the oldest other dead letter may be recovered
    given_up_lately: int  # dead letters since the last publication
    given_up_lately_since: datetime | None
    claimable: int
    unfinished_since: datetime | None  # since when the oldest queued, unpublished work waits
    stale_claims: int
    chunks: int
    reconciled_at: datetime | None  # when what change tracking missed was last queued
    unqueued: int  # calls without a queue row
    deleted: int  # published recordings whose call is deleted, not queued for withdrawal yet
    published_last_hour: int
    failures_last_hour: int
    embedded_last_hour: int
    requests_today: int  # days are UTC's
    tokens_today: int
    cost_today_usd: float | None  # None: no price is known
    last_published_at: datetime | None
    configuration_error: (
        str | None
    )  # of the last run that one stopped, if nothing was embedded since
    configuration_error_at: datetime | None
    live_model: str | None
    looked_until: str | None
    round_started_at: datetime | None
    last_round_ended_at: datetime | None
    inspected_at: datetime | None
    inspected_recordings: int
    inspected_chunks: int
    broken: int
    pgvector_version: str | None
    cut_otherwise: int  # published recordings whose chunks have other sizes than the settings
    cut_unknown: int  # published recordings that do not say which sizes their chunks have
    search_language: str | None  # that search reads; None: search is not set up
    words_counted: int  # chunks whose words are counted
    budget_spent_at: datetime | None  # when the budget stopped a run today, nothing embedded since
    words_uncounted_since: datetime | None  # the oldest publication whose words are not counted

    @property
    def waiting(self) -> int:
        """Recordings that came or changed and have not been attempted since."""
        return self.pending + self.unqueued

    @property
    def due(self) -> int:
        """Recordings that a worker would process now."""
        return self.claimable + self.stale_claims + self.unqueued + self.deleted

    @property
    def unfinished(self) -> int:
        """Recordings that the system will process without a person, now or later.

        Claimed ones count too, because a run that hangs publishes nothing.
        """
        return self.pending + self.failed + self.processing + self.unqueued + self.deleted

    @property
    def wanted_since(self) -> datetime | None:
        """Since when the oldest unfinished recording waits, at the earliest; None if none does."""
        since = [self.unfinished_since]
        if self.unqueued or self.deleted:
            # When these came or went is not recorded; it was after the last reconciliation.
            told = [at for at in (self.reconciled_at, self.inspected_at) if at is not None]
            since.append(max(told, default=self.round_started_at))
        if self.given_up_lately >= GIVEN_UP_IN_A_ROW:
            since.append(self.given_up_lately_since)
        return min((at for at in since if at is not None), default=None)

    @property
    def completion_percent(self) -> float:
        """The share of attempted recordings whose present transcript is published."""
        tried = self.completed + self.failed + self.dead_letters
        return 100.0 if tried == 0 else 100.0 * self.completed / tried

    @property
    def by_status(self) -> dict[str, int]:
        """Recordings by the state of their queue row."""
        return {
            "pending": self.pending,
            "processing": self.processing,
            "completed": self.completed,
            "failed": self.failed,
            "dead_letter": self.dead_letters,
        }


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A recording that was given up, and why."""

    recording_id: str
    attempts: int  # failed ones since the last change
    recoveries: int
    waits_for_person: bool
    error_kind: str
    last_error: str
    next_attempt_at: datetime  # from when on it may be recovered

    def __str__(self) -> str:
        waits = " (waits for a person)" if self.waits_for_person else ""
        return f"{self.recording_id}: {self.error_kind}: {self.last_error}{waits}"


@dataclass(frozen=True, slots=True)
class RunInFlight:
    """A run that has claimed recordings; once its leases expire, it counts as dead."""

    run_id: str
    recordings: int
    holds_since: datetime | None
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """What one model cost today (UTC) in one lane."""

    model: str
    lane: str
    requests: int
    tokens: int
    cost_usd: float | None  # None: no price is known


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst few of each kind, in a line each: ids and reasons, nothing that anybody said."""

    dead_letters: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    stale_claims: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def measure(connection: Connection, *, cut_as: str | None = None) -> Numbers:
    """Counts everything in one statement; `cut_as` are the sizes of chunks that are wanted."""
    row = sql.health_numbers(
        connection, max_attempts=MAX_ATTEMPTS, max_recoveries=MAX_RECOVERIES, cut_as=cut_as
    )
    return Numbers(**row._asdict())


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of a while that ended alike."""

    outcome: str
    error_kind: str | None
    attempts: int
    embedded: int
    requests: int
    refusals: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Pace:
    """What a model's account lets through, as its server told."""

    model: str
    tokens_per_minute: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a system of monitoring watches."""

    numbers: Numbers
    attempts: tuple[Attempts, ...]
    costs: tuple[Cost, ...]
    paces: tuple[Pace, ...]


def figures(database: Database, lately: timedelta) -> Figures:
    """Everything at one moment, and the attempts that ended lately.

    Raises:
        EmbeddingAssetsError: the database cannot be read.
    """
    with database.transaction(snapshot=True) as connection:
        sql.limit_statements(connection)
        numbers = measure(connection)
        since = numbers.checked_at - lately
        return Figures(
            numbers,
            tuple(Attempts(**row._asdict()) for row in sql.attempts_since(connection, since=since)),
            costs_today(connection),
            tuple(Pace(**row._asdict()) for row in sql.paces(connection)),
        )


def attempts_by_hour(database: Database, since: datetime) -> list[dict[str, Any]]:
    """The attempts that ended since then, added up by hour (UTC), outcome and kind of failure.

    Raises:
        EmbeddingAssetsError: the database cannot be read.
    """
    with database.transaction(snapshot=True) as connection:
        return [row._asdict() for row in sql.attempts_by_hour(connection, since=since)]


def costs_today(connection: Connection) -> tuple[Cost, ...]:
    """What was spent today, by model and lane, the most tokens first."""
    return tuple(Cost(**row._asdict()) for row in sql.costs_today(connection))


def dead_letters_told(connection: Connection) -> tuple[DeadLetter, ...]:
    """The dead letters to show with their errors, those that wait for a person first."""
    rows = sql.worst_dead_letters(connection, limit=DEAD_LETTERS, max_recoveries=MAX_RECOVERIES)
    return tuple(DeadLetter(**row._asdict()) for row in rows)


def worst_of_each(connection: Connection, letters: Sequence[DeadLetter]) -> Worst:
    """The worst few of each kind, as lines of text."""
    return Worst(
        dead_letters=tuple(str(letter) for letter in letters[:WORST]),
        waiting=tuple(
            f"{row.recording_id}: {row.status}, wanted since {in_utc(row.enqueued_at)}"
            for row in sql.longest_waiting(connection, limit=WORST)
        ),
        stale_claims=tuple(
            f"{row.recording_id}: held by run {row.claimed_by}, whose lease ended"
            f" {in_utc(row.lease_expires_at)}"
            for row in sql.stalest_claims(connection, limit=WORST)
        ),
        broken=tuple(
            f"{row.recording_id}: {row.problem}"
            for row in sql.oldest_findings(connection, limit=WORST)
        ),
    )


def in_utc(when: datetime | None) -> str:
    """A moment, in UTC, as every server of a company reads it alike."""
    return "never" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
