"""What the numbers of health mean: one finding a check, with its severity and what to do.

The asset checks, the monitor, the alerts and the trend all show what is judged here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    LockedError,
    StatementTimeoutError,
)
from embedding_assets.health.configuration import (
    Expected,
    budget,
    chunk_sizes,
    configuration,
    search_words,
)
from embedding_assets.health.findings import Finding, Health, Severity, at_least, count, iso
from embedding_assets.health.numbers import (
    Numbers,
    RunInFlight,
    Worst,
    costs_today,
    dead_letters_told,
    in_utc,
    measure,
    worst_of_each,
)
from embedding_assets.health.recorders import KeyNumbers, measure_keys, recorder_sync
from embedding_assets.health.retention import Due, calls_due, retention
from embedding_assets.health.statements import sql


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


def examine(database: Database, thresholds: Thresholds, expected: Expected) -> Health:
    """Counts and judges.

    Args:
        database: the application's.
        thresholds: what counts as bad.
        expected: what the settings say.

    Raises:
        TransientError: the database cannot be reached.
        ConfigurationError: the schema is missing or old, or the role may not read it.
    """
    with database.transaction(snapshot=True) as connection:
        sql.limit_statements(connection)
        numbers = measure(connection, cut_as=expected.cut_as)
        letters = dead_letters_told(connection)
        worst = worst_of_each(connection, letters)
        runs = tuple(RunInFlight(**row._asdict()) for row in sql.runs_in_flight(connection))
        costs = costs_today(connection)
        keys = measure_keys(connection)
        due = calls_due(connection, expected.retention_days)
    health = judge(numbers, worst, thresholds, expected, keys=keys, due=due)
    return replace(health, dead_letters=letters, runs_in_flight=runs, costs=costs)


def judge(
    numbers: Numbers,
    worst: Worst,
    thresholds: Thresholds,
    expected: Expected,
    *,
    keys: Sequence[KeyNumbers] = (),
    due: Due | None = None,
) -> Health:
    """One finding for each check of the database; `docs/runbook.md` describes them."""
    findings = (
        configuration(numbers, expected),
        _dead_letters(numbers, worst, thresholds),
        _pending_backlog(numbers, worst, thresholds),
        _recent_activity(numbers, worst, thresholds),
        _completion_rate(numbers, worst, thresholds),
        _stale_claims(numbers, worst, thresholds),
        _chunk_integrity(numbers, worst, thresholds),
        chunk_sizes(numbers),
        search_words(numbers, expected),
        budget(numbers, expected),
        recorder_sync(keys, expected.fathom_keys, numbers.checked_at),
        retention(due, expected.retention_days, numbers.checked_at),
    )
    return Health(numbers.checked_at, findings, numbers)


def unreadable(error: EmbeddingAssetsError, *, setting_error: str | None = None) -> Health:
    """Health when the database, without which nothing works, cannot be read."""
    if isinstance(error, ConfigurationError):
        action = "mend the setting, then embedding-assets init"
    elif isinstance(error, LockedError):
        action = "see who that is, and end it if it does not end by itself"
    elif isinstance(error, StatementTimeoutError):
        action = "see what keeps the database server busy, or raise this role's statement_timeout"
    else:
        action = "start the database server, or mend DATABASE_URL"
    message = str(error) if setting_error is None else f"{error}; besides, {setting_error}"
    finding = Finding("configuration", Severity.CRITICAL, message, action)
    return Health(datetime.now(UTC), (finding,), None)


DATABASE_CHECKS = (
    "configuration",
    "dead_letters",
    "pending_backlog",
    "recent_activity",
    "completion_rate",
    "stale_claims",
    "chunk_integrity",
    "chunk_sizes",
    "search_words",
    "budget",
    "recorder_sync",
    "retention",
)
CHECKS = (*DATABASE_CHECKS, "disk", "orchestration")
"""Every finding's name, in the order they are shown; `surroundings` makes the last two."""


def _dead_letters(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    severity = at_least(
        numbers.dead_letters, thresholds.dead_letters_warning, thresholds.dead_letters_critical
    )
    message = f"{count(numbers.dead_letters, 'recording')} given up"
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
            "due_for_recovery_since": iso(since),
        },
        worst.dead_letters,
    )


def _pending_backlog(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    severity = at_least(numbers.waiting, thresholds.pending_warning, thresholds.pending_critical)
    return Finding(
        "pending_backlog",
        severity,
        f"{count(numbers.waiting, 'recording')} waiting, {numbers.processing:,} being worked on,"
        f" {numbers.published_last_hour:,} published in the last hour"
        + (f", {numbers.in_batches:,} in batches" if numbers.in_batches else ""),
        None
        if severity is Severity.HEALTHY
        else "nothing, if enough are published in an hour; else see that the Dagster daemon runs,"
        " raise MAX_WORKERS, or add a worker: embedding-assets run",
        {
            "pending": numbers.pending,
            "unqueued": numbers.unqueued,
            "due": numbers.due,
            "processing": numbers.processing,
            "in_batches": numbers.in_batches,
        },
        worst.waiting,
    )


def _recent_activity(numbers: Numbers, worst: Worst, thresholds: Thresholds) -> Finding:
    quiet = _quiet(numbers)
    severity = Severity.HEALTHY
    if quiet is not None:
        severity = at_least(
            quiet.total_seconds(),
            thresholds.quiet_warning.total_seconds(),
            thresholds.quiet_critical.total_seconds(),
        )
    message = (
        f"{count(numbers.published_last_hour, 'recording')} published in the last hour,"
        f" {numbers.due:,} due"
    )
    if severity > Severity.HEALTHY and quiet is not None:
        message = (
            f"nothing published for {_hours(quiet)}: {count(numbers.due, 'recording')} due,"
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
            "last_published_at": iso(numbers.last_published_at),
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
        f"{math.floor(percent * 100) / 100:.2f} % of {count(tried, 'recording')} that were tried"
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
        f"{count(numbers.stale_claims, 'recording')} claimed by runs that died"
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
            f"looked at {count(numbers.inspected_recordings, 'recording')} and"
            f" {count(numbers.inspected_chunks, 'chunk')} {in_utc(numbers.inspected_at)}, of"
            f" {count(numbers.chunks, 'chunk')}; "
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
        f"{count(numbers.broken, 'recording')} not as published ({looked})"
        if numbers.broken
        else looked,
        action,
        {
            "broken": numbers.broken,
            "inspected_recordings": numbers.inspected_recordings,
            "inspected_chunks": numbers.inspected_chunks,
            "chunks": numbers.chunks,
            "inspected_at": iso(numbers.inspected_at),
            "last_round_ended_at": iso(numbers.last_round_ended_at),
        },
        worst.broken,
    )


def _hours(span: timedelta) -> str:
    minutes = int(span / timedelta(minutes=1))
    return f"{minutes // 60} h {minutes % 60:02} min"
