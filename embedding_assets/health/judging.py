"""What the numbers of health mean: one finding a check, with its severity and what to do.

The asset checks, the monitor, the alerts and the trend all show what is judged here.
"""

import math
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    StatementTimeoutError,
)
from embedding_assets.health.numbers import (
    DeadLetter,
    Numbers,
    RunInFlight,
    Worst,
    dead_letters_told,
    in_utc,
    measure,
    worst_of_each,
)
from embedding_assets.health.statements import sql

OLDEST_PGVECTOR = (0, 7)
# Before it, comparing signs is slow on PostgreSQL 18, and a vacuum of an index may fail.
MENDED_PGVECTOR = (0, 8, 4)
CLOCK_TOLERANCE = timedelta(minutes=5)

Figure = int | float | str | None


class Severity(StrEnum):
    """How bad something is; later members are worse."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1, 2: also the exit code of a probe."""
        return list(Severity).index(self)

    # All four are defined, because str's own comparisons are alphabetical.
    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which number on something is worth a warning, or critical."""

    dead_letters_warning: int = 21
    dead_letters_critical: int = 51
    pending_warning: int = 100
    pending_critical: int = 501
    quiet_warning: timedelta = timedelta(hours=1)
    quiet_critical: timedelta = timedelta(hours=6)
    completion_warning: float = 99.0  # percent; below it
    stale_claims_warning: int = 1
    # recover_dead_letters takes five every six hours, so within a day each of twenty had its turn.
    unrecovered_warning: timedelta = timedelta(hours=24)
    uninspected_warning: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result: what is the matter, its numbers, and what to do."""

    name: str
    severity: Severity
    message: str
    action: str | None = None  # a command, or what to look at; None while healthy
    figures: dict[str, Figure] = field(default_factory=dict)
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """All findings of one moment; without numbers where the database could not be read."""

    checked_at: datetime
    findings: tuple[Finding, ...]
    numbers: Numbers | None
    dead_letters: tuple[DeadLetter, ...] = ()  # the worst few
    runs_in_flight: tuple[RunInFlight, ...] = ()  # all

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return max((finding.severity for finding in self.findings), default=Severity.HEALTHY)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, apart from the times."""
        return {
            "status": str(self.severity),
            "checked_at": self.checked_at,
            "checks": [asdict(finding) for finding in self.findings],
            "numbers": None if self.numbers is None else asdict(self.numbers),
            "dead_letters": [asdict(letter) for letter in self.dead_letters],
            "runs_in_flight": [asdict(run) for run in self.runs_in_flight],
        }


def examine(
    database: Database,
    thresholds: Thresholds,
    *,
    model: str | None,
    setting_error: str | None = None,
) -> Health:
    """Counts and judges.

    Args:
        database: the application's.
        thresholds: what counts as bad.
        model: the settings' model, as vectors are stored under it; None if a setting is wrong.
        setting_error: what is wrong with the settings themselves; None if nothing.

    Raises:
        TransientError: the database cannot be reached.
        ConfigurationError: the schema is missing or old, or the role may not read it.
    """
    with database.transaction(snapshot=True) as connection:
        sql.limit_statements(connection)
        numbers = measure(connection)
        letters = dead_letters_told(connection)
        worst = worst_of_each(connection, letters)
        runs = tuple(RunInFlight(**row._asdict()) for row in sql.runs_in_flight(connection))
    health = judge(numbers, worst, thresholds, model=model, setting_error=setting_error)
    return replace(health, dead_letters=letters, runs_in_flight=runs)


def judge(
    numbers: Numbers,
    worst: Worst,
    thresholds: Thresholds,
    *,
    model: str | None,
    setting_error: str | None = None,
) -> Health:
    """One finding for each check; `docs/runbook.md` describes them."""
    findings = (
        _configuration(numbers, model, setting_error),
        _dead_letters(numbers, worst, thresholds),
        _pending_backlog(numbers, worst, thresholds),
        _recent_activity(numbers, worst, thresholds),
        _completion_rate(numbers, worst, thresholds),
        _stale_claims(numbers, worst, thresholds),
        _chunk_integrity(numbers, worst, thresholds),
    )
    return Health(numbers.checked_at, findings, numbers)


def unreadable(error: EmbeddingAssetsError, *, setting_error: str | None = None) -> Health:
    """Health when the database, without which nothing works, cannot be read."""
    if isinstance(error, ConfigurationError):
        action = "mend the setting, then embedding-assets init"
    elif isinstance(error, StatementTimeoutError):
        action = "see what keeps the database server busy, or raise this role's statement_timeout"
    else:
        action = "start the database server, or mend DATABASE_URL"
    message = str(error) if setting_error is None else f"{error}; besides, {setting_error}"
    finding = Finding("configuration", Severity.CRITICAL, message, action)
    return Health(datetime.now(UTC), (finding,), None)


CHECKS = (
    "configuration",
    "dead_letters",
    "pending_backlog",
    "recent_activity",
    "completion_rate",
    "stale_claims",
    "chunk_integrity",
)
"""Every finding's name, in the order they are shown."""


def _at_least(number: float, warning: float, critical: float) -> Severity:
    if number >= critical:
        return Severity.CRITICAL
    return Severity.WARNING if number >= warning else Severity.HEALTHY


def _configuration(numbers: Numbers, model: str | None, setting_error: str | None) -> Finding:
    problem = setting_error or _misconfigured(numbers, model)
    severity = Severity.CRITICAL if problem else Severity.HEALTHY
    message = problem or f"settings, schema and pgvector {numbers.pgvector_version} agree"
    action = (
        "mend what is named; nothing is lost, and embedding-assets run shows whether it works then"
        if problem
        else None
    )
    if not problem and _version(numbers.pgvector_version) < MENDED_PGVECTOR:
        severity = Severity.WARNING
        message = (
            f"pgvector {numbers.pgvector_version} has faults that 0.8.4 mended: searches are slow"
            " on PostgreSQL 18, and a vacuum of the vector index may fail"
        )
        action = "install pgvector 0.8.4 or newer on the server, then ALTER EXTENSION vector UPDATE"
    return Finding(
        "configuration",
        severity,
        message,
        action,
        {
            "model": model,
            "live_model": numbers.live_model,
            "pgvector": numbers.pgvector_version,
            "stopped_a_run_at": _iso(numbers.configuration_error_at),
        },
    )


def _version(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or "")[:3])


def _misconfigured(numbers: Numbers, model: str | None) -> str | None:
    version = numbers.pgvector_version
    if version is None:
        return "pgvector is not installed in this database: CREATE EXTENSION vector"
    if _version(version) < OLDEST_PGVECTOR:
        return f"pgvector {version} is too old: ALTER EXTENSION vector UPDATE to 0.7 or newer"
    if numbers.live_model is not None and numbers.live_model != model:
        return (
            f"the settings name the model {model}, but search reads {numbers.live_model}: set"
            " EMBEDDING_PROVIDER, EMBEDDING_MODEL and EMBEDDING_DIMENSIONS back, or run"
            " embedding-assets switch-model"
        )
    if numbers.configuration_error is not None and numbers.unfinished:
        at = in_utc(numbers.configuration_error_at)
        return f"a run was stopped {at}: {numbers.configuration_error}"
    last = numbers.last_published_at
    if last is not None and last > numbers.checked_at + CLOCK_TOLERANCE:
        return (
            f"the database server's clock was set back: it is {in_utc(numbers.checked_at)} there,"
            f" and the last recording was published {in_utc(last)}; what became due in between"
            " waits until then: set the clock right"
        )
    return None


def _dead_letters(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    severity = _at_least(
        numbers.dead_letters, thresholds.dead_letters_warning, thresholds.dead_letters_critical
    )
    message = f"{_count(numbers.dead_letters, 'recording')} given up"
    since = numbers.recoverable_since
    is_left = since is not None and numbers.checked_at - since >= thresholds.unrecovered_warning
    if numbers.waiting_for_person:
        message += f", {numbers.waiting_for_person:,} of them waiting for a person"
    if is_left:
        message += f", due for another try since {in_utc(since)}"
    if numbers.waiting_for_person or is_left:
        severity = max(severity, Severity.WARNING)
    action = "mend what the errors say, then embedding-assets retry --dead-letters"
    if numbers.waiting_for_person:
        action += " --force"
    if is_left:
        action += "; see why the schedule recover_dead_letters does not try them"
    return Finding(
        "dead_letters",
        severity,
        message,
        action if severity > Severity.HEALTHY else None,
        {
            "dead_letters": numbers.dead_letters,
            "waiting_for_person": numbers.waiting_for_person,
            "due_for_recovery_since": _iso(since),
        },
        worst.dead_letters,
    )


def _pending_backlog(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    severity = _at_least(numbers.waiting, thresholds.pending_warning, thresholds.pending_critical)
    return Finding(
        "pending_backlog",
        severity,
        f"{_count(numbers.waiting, 'recording')} waiting, {numbers.processing:,} being worked on,"
        f" {numbers.published_last_hour:,} published in the last hour",
        None
        if severity is Severity.HEALTHY
        else "nothing, if enough are published in an hour; else see that the Dagster daemon runs,"
        " raise MAX_WORKERS, or add a worker: embedding-assets run",
        {
            "pending": numbers.pending,
            "unqueued": numbers.unqueued,
            "due": numbers.due,
            "processing": numbers.processing,
        },
        worst.waiting,
    )


def _recent_activity(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    quiet = _quiet(numbers)
    severity = Severity.HEALTHY
    if quiet is not None:
        severity = _at_least(
            quiet.total_seconds(),
            thresholds.quiet_warning.total_seconds(),
            thresholds.quiet_critical.total_seconds(),
        )
    message = (
        f"{_count(numbers.published_last_hour, 'recording')} published in the last hour,"
        f" {numbers.due:,} due"
    )
    if severity > Severity.HEALTHY and quiet is not None:
        message = (
            f"nothing published for {_hours(quiet)}: {_count(numbers.due, 'recording')} due,"
            f" {numbers.processing:,} being worked on"
        )
        if numbers.given_up_lately:
            message += f", {numbers.given_up_lately:,} that came since given up"
    return Finding(
        "recent_activity",
        severity,
        message,
        None
        if severity is Severity.HEALTHY
        else "see that the Dagster daemon runs, and in Dagster why the last runs of"
        " embed_recordings failed; embedding-assets run works without the daemon and says why not",
        {
            "published_last_hour": numbers.published_last_hour,
            "embedded_last_hour": numbers.embedded_last_hour,
            "failures_last_hour": numbers.failures_last_hour,
            "due": numbers.due,
            "unfinished": numbers.unfinished,
            "given_up_lately": numbers.given_up_lately,
            "quiet_hours": None if quiet is None else round(quiet / timedelta(hours=1), 2),
            "last_published_at": _iso(numbers.last_published_at),
        },
        worst.waiting or worst.dead_letters,
    )


def _quiet(numbers: Numbers) -> timedelta | None:
    """How long work has been waiting without any publication; None while no work waits.

    A night without new calls does not count: the time starts when work comes in.
    """
    if numbers.wanted_since is None:
        return None
    since = max(numbers.wanted_since, numbers.last_published_at or numbers.wanted_since)
    return max(numbers.checked_at - since, timedelta(0))


def _completion_rate(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    percent = numbers.completion_percent
    is_low = percent < thresholds.completion_warning
    tried = numbers.completed + numbers.failed + numbers.dead_letters
    return Finding(
        "completion_rate",
        Severity.WARNING if is_low else Severity.HEALTHY,
        # Rounded down, so that 98.999 does not read as 99 and 99.999 not as 100.
        f"{math.floor(percent * 100) / 100:.2f} % of {_count(tried, 'recording')} that were tried"
        f" are published; {numbers.failed:,} failed and will be tried again,"
        f" {numbers.dead_letters:,} given up",
        "mend what the errors say (embedding-assets monitor); what failed is tried again by itself,"
        " what was given up with embedding-assets retry --dead-letters"
        if is_low
        else None,
        {
            "completion_percent": round(percent, 3),
            "completed": numbers.completed,
            "failed": numbers.failed,
            "dead_letters": numbers.dead_letters,
        },
        worst.dead_letters,
    )


def _stale_claims(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    is_stale = numbers.stale_claims >= thresholds.stale_claims_warning
    return Finding(
        "stale_claims",
        Severity.WARNING if is_stale else Severity.HEALTHY,
        f"{_count(numbers.stale_claims, 'recording')} claimed by runs that died"
        if numbers.stale_claims
        else "no recording is claimed by a run that died",
        "nothing, if it is gone in ten minutes: the next worker takes them back; else see that the"
        " Dagster daemon runs, or embedding-assets run"
        if is_stale
        else None,
        {"stale_claims": numbers.stale_claims, "processing": numbers.processing},
        worst.stale_claims,
    )


def _chunk_integrity(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    since = numbers.inspected_at or numbers.round_started_at
    is_left = since is not None and numbers.checked_at - since >= thresholds.uninspected_warning
    if numbers.inspected_at is None:
        looked = "no inspection yet: the job check_health makes them"
    else:
        ended = numbers.last_round_ended_at
        looked = (
            f"looked at {_count(numbers.inspected_recordings, 'recording')} and"
            f" {_count(numbers.inspected_chunks, 'chunk')} {in_utc(numbers.inspected_at)}, of"
            f" {_count(numbers.chunks, 'chunk')}; "
            + (
                "the first round is not over"
                if ended is None
                else f"last round ended {in_utc(ended)}"
            )
        )
    severity = Severity.WARNING if is_left and numbers.chunks else Severity.HEALTHY
    action = None
    if severity is Severity.WARNING:
        action = "see why the schedule check_health starts no inspection"
    if numbers.broken:
        severity = Severity.CRITICAL
        action = (
            "embedding-assets retry --broken --now embeds them again, and the next inspection looks"
            " again; what is found once more was not broken by chance: docs/runbook.md"
        )
    return Finding(
        "chunk_integrity",
        severity,
        f"{_count(numbers.broken, 'recording')} not as published ({looked})"
        if numbers.broken
        else looked,
        action,
        {
            "broken": numbers.broken,
            "inspected_recordings": numbers.inspected_recordings,
            "inspected_chunks": numbers.inspected_chunks,
            "chunks": numbers.chunks,
            "inspected_at": _iso(numbers.inspected_at),
            "last_round_ended_at": _iso(numbers.last_round_ended_at),
        },
        worst.broken,
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _hours(span: timedelta) -> str:
    minutes = int(span / timedelta(minutes=1))
    return f"{minutes // 60} h {minutes % 60:02} min"


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat(timespec="seconds")
