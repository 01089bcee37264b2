"""Findings about the settings: whether the database agrees with what they name."""

import re
from dataclasses import dataclass
from datetime import timedelta

from embedding_assets.health.findings import Finding, Severity, count, iso
from embedding_assets.health.numbers import Numbers, in_utc

OLDEST_PGVECTOR = (0, 7)
# Before it, comparing signs is slow on PostgreSQL 18, and a vacuum of an index may fail.
MENDED_PGVECTOR = (0, 8, 4)
CLOCK_TOLERANCE = timedelta(minutes=5)
BUDGET_WARNING = 0.8  # share of the budget
RAISE_BUDGET = (
    "nothing, if it may wait for 00:00 UTC; else raise EMBEDDING_DAILY_BUDGET_USD or"
    " EMBEDDING_DAILY_BUDGET_TOKENS"
)
UNCOUNTED_WARNING = timedelta(hours=3)  # the schedule count_words starts a run every half hour


@dataclass(frozen=True, slots=True)
class Expected:
    """What the settings say, to be compared with the database; None: it is not compared."""

    model: str | None  # as vectors are stored under it; None, too, if a setting is wrong
    language: str | None = None  # that search should read
    cut_as: str | None = None  # the sizes of chunks, as published recordings name them
    tokens_a_day: float | None = None  # the budget
    retention_days: int | None = None
    fathom_keys: tuple[str, ...] = ()  # the names of the recorder's keys
    error: str | None = None  # what is wrong with the settings themselves


def configuration(numbers: Numbers, expected: Expected) -> Finding:
    """Whether settings, schema and pgvector let anything work."""
    model = expected.model
    problem = expected.error or _misconfigured(numbers, model)
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
            "stopped_a_run_at": iso(numbers.configuration_error_at),
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


def chunk_sizes(numbers: Numbers) -> Finding:
    """Whether what is published is cut by the sizes of the settings."""
    is_bad = numbers.cut_otherwise > 0
    message = "every recording is cut into chunks of the sizes that CHUNK_* names"
    if numbers.cut_unknown:
        message = (
            f"{count(numbers.cut_unknown, 'recording')} published by an older version, which did"
            " not note the sizes of chunks"
        )
    if is_bad:
        message = (
            f"{count(numbers.cut_otherwise, 'recording')} cut into chunks of other sizes than"
            " CHUNK_TARGET_TOKENS, CHUNK_OVERLAP_TOKENS and CHUNK_MAX_TOKENS name now, or redacted"
            " otherwise than REDACT names"
        )
    return Finding(
        "chunk_sizes",
        Severity.WARNING if is_bad else Severity.HEALTHY,
        message,
        "embedding-assets rechunk --estimate tells what it costs to cut them again,"
        " embedding-assets rechunk does it; or set CHUNK_* back"
        if is_bad
        else None,
        {"cut_otherwise": numbers.cut_otherwise, "cut_unknown": numbers.cut_unknown},
    )


def search_words(numbers: Numbers, expected: Expected) -> Finding:
    """Whether words are searched in the language of the settings, and counted up to date."""
    since = numbers.words_uncounted_since
    is_stale = since is not None and numbers.checked_at - since >= UNCOUNTED_WARNING
    language = expected.language
    is_other = language is not None and language != numbers.search_language
    message = f"words are read in {numbers.search_language}, and counted"
    action = None
    if is_stale:
        message = (
            f"the words of what was published since {in_utc(since)} are not counted, so search"
            " weighs them as if they were rare"
        )
        action = "see why the schedule count_words starts no run, or why its runs fail"
    if is_other:
        message = (
            f"SEARCH_LANGUAGE is {language}, but search reads the words of"
            f" {numbers.search_language or 'no language'}"
        )
        action = "embedding-assets switch-language, or set SEARCH_LANGUAGE back"
    return Finding(
        "search_words",
        Severity.WARNING if is_stale or is_other else Severity.HEALTHY,
        message,
        action,
        {
            "search_language": numbers.search_language,
            "words_counted": numbers.words_counted,
            "chunks": numbers.chunks,
            "words_uncounted_since": iso(since),
        },
    )


def budget(numbers: Numbers, expected: Expected) -> Finding:
    """Whether work waits because the budget of the day is spent, or soon will."""
    most, spent = expected.tokens_a_day, numbers.tokens_today
    severity, action = Severity.HEALTHY, None
    message = f"{count(spent, 'token')} today (UTC), and no budget is set"
    if most is not None:
        message = f"{spent:,} of {most:,.0f} tokens today (UTC)"
        if spent >= BUDGET_WARNING * most and spent:
            severity, action = Severity.WARNING, RAISE_BUDGET
        if numbers.budget_spent_at is not None and numbers.unfinished:
            severity, action = Severity.CRITICAL, RAISE_BUDGET
            message += (
                f"; {count(numbers.unfinished, 'recording')} waiting for the next day, as they do"
                " not fit into what is left"
            )
    return Finding(
        "budget",
        severity,
        message,
        action,
        {
            "tokens_today": spent,
            "cost_today_usd": numbers.cost_today_usd,
            "tokens_a_day": most,
            "stopped_a_run_at": iso(numbers.budget_spent_at),
        },
    )
