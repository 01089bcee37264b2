"""What the numbers mean: pure decisions, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    StatementTimeoutError,
    TransientError,
)
from embedding_assets.health.configuration import Expected
from embedding_assets.health.findings import Finding, Health, Severity
from embedding_assets.health.judging import DATABASE_CHECKS, Thresholds, judge, unreadable
from embedding_assets.health.numbers import Numbers, Worst
from embedding_assets.health.retention import Due

HEALTHY, WARNING, CRITICAL = Severity
NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
MODEL = "m"
DEFAULTS = Thresholds()
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

QUIET_NIGHT = Numbers(
    checked_at=NOW,
    pending=0,
    in_batches=0,
    processing=0,
    completed=10_000,
    failed=0,
    dead_letters=0,
    waiting_for_person=0,
    recoverable_since=None,
    given_up_lately=0,
    given_up_lately_since=None,
    claimable=0,
    unfinished_since=None,
    stale_claims=0,
    chunks=100_000,
    reconciled_at=NOW - MINUTE,
    unqueued=0,
    deleted=0,
    published_last_hour=0,
    failures_last_hour=0,
    embedded_last_hour=0,
    requests_today=0,
    tokens_today=0,
    cost_today_usd=None,
    last_published_at=NOW - 9 * HOUR,
    configuration_error=None,
    configuration_error_at=None,
    live_model=MODEL,
    looked_until=None,
    round_started_at=NOW - HOUR,
    last_round_ended_at=NOW - HOUR,
    inspected_at=NOW - MINUTE,
    inspected_recordings=10_000,
    inspected_chunks=100_000,
    broken=0,
    pgvector_version="0.8.5",
    cut_otherwise=0,
    cut_unknown=0,
    search_language="english",
    words_counted=100_000,
    words_uncounted_since=None,
    budget_spent_at=None,
)


def _judged(thresholds: Thresholds = DEFAULTS, **numbers: Any) -> dict[str, Finding]:
    """The findings by name, in a quiet night but for these numbers."""
    return _by_name(
        judge(replace(QUIET_NIGHT, **numbers), Worst(), thresholds, Expected(model=MODEL))
    )


def _by_name(health: Health) -> dict[str, Finding]:
    return {finding.name: finding for finding in health.findings}


def test_severities_are_ordered_by_how_bad_they_are_and_not_as_text() -> None:
    assert sorted([CRITICAL, HEALTHY, WARNING]) == [HEALTHY, WARNING, CRITICAL]
    assert max(HEALTHY, CRITICAL) is max(CRITICAL, HEALTHY) is CRITICAL
    assert max(WARNING, CRITICAL) is CRITICAL
    assert min(CRITICAL, HEALTHY) is HEALTHY
    assert CRITICAL > WARNING > HEALTHY
    assert CRITICAL >= WARNING
    assert HEALTHY <= CRITICAL
    assert not CRITICAL < HEALTHY
    assert [severity.rank for severity in Severity] == [0, 1, 2]


def test_a_quiet_night_is_healthy_and_nothing_is_to_do() -> None:
    judged = judge(QUIET_NIGHT, Worst(), DEFAULTS, Expected(model=MODEL))
    assert judged.severity is HEALTHY
    assert tuple(_by_name(judged)) == DATABASE_CHECKS
    assert {finding.severity for finding in judged.findings} == {HEALTHY}
    assert {finding.action for finding in judged.findings} == {None}


@pytest.mark.parametrize("name", DATABASE_CHECKS)
def test_the_whole_is_as_bad_as_its_worst_check(name: str) -> None:
    bad = {
        "configuration": {"pgvector_version": None},
        "dead_letters": {"dead_letters": 51},
        "pending_backlog": {"pending": 501},
        "recent_activity": {"processing": 1, "unfinished_since": NOW - 6 * HOUR},
        "completion_rate": {"completed": 1, "failed": 1},
        "stale_claims": {"stale_claims": 1},
        "chunk_integrity": {"broken": 1},
        "chunk_sizes": {"cut_otherwise": 1},
        "search_words": {"words_uncounted_since": NOW - 3 * HOUR},
        "budget": {"tokens_today": 800},
        "recorder_sync": {},
        "retention": {},
    }[name]
    keys = ("ann",) if name == "recorder_sync" else ()
    days = 30 if name == "retention" else None
    expected = Expected(model=MODEL, tokens_a_day=1_000, fathom_keys=keys, retention_days=days)
    due = Due(3, NOW - timedelta(days=40))
    judged = judge(replace(QUIET_NIGHT, **bad), Worst(), DEFAULTS, expected, due=due)
    assert judged.severity is _by_name(judged)[name].severity
    assert judged.severity > HEALTHY
    assert _by_name(judged)[name].action is not None


OF_LETTERS = [(20, HEALTHY), (21, WARNING), (50, WARNING), (51, CRITICAL)]
OF_PENDING = [(99, HEALTHY), (100, WARNING), (500, WARNING), (501, CRITICAL)]
OF_10_000 = [(101, HEALTHY), (102, WARNING)]
EDGES: list[tuple[str, dict[str, float], str, list[tuple[int, Severity]]]] = [
    ("dead_letters", {}, "dead_letters", OF_LETTERS),
    ("dead_letters", {"dead_letters_warning": 2, "dead_letters_critical": 3}, "dead_letters",
     [(1, HEALTHY), (2, WARNING), (3, CRITICAL)]),
    ("dead_letters", {"dead_letters_warning": 5, "dead_letters_critical": 2}, "dead_letters",
     [(1, HEALTHY), (2, CRITICAL), (5, CRITICAL)]),
    ("pending_backlog", {}, "pending", OF_PENDING),
    ("pending_backlog", {}, "unqueued", OF_PENDING),
    ("pending_backlog", {"pending_warning": 1, "pending_critical": 2}, "pending",
     [(0, HEALTHY), (1, WARNING), (2, CRITICAL)]),
    ("completion_rate", {}, "failed", OF_10_000),
    ("completion_rate", {}, "dead_letters", OF_10_000),
    ("completion_rate", {"completion_warning": 50.0}, "failed",
     [(10_000, HEALTHY), (10_001, WARNING)]),
    ("completion_rate", {"completion_warning": 100.0}, "failed", [(0, HEALTHY), (1, WARNING)]),
    ("stale_claims", {}, "stale_claims", [(0, HEALTHY), (1, WARNING), (500, WARNING)]),
    ("stale_claims", {"stale_claims_warning": 3}, "stale_claims", [(2, HEALTHY), (3, WARNING)]),
    ("chunk_integrity", {}, "broken", [(0, HEALTHY), (1, CRITICAL)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "thresholds", "number", "value", "severity"),
    [(*edge[:3], value, severity) for edge in EDGES for value, severity in edge[3]],
)
def test_each_threshold_is_met_at_its_edge(
    name: str, thresholds: dict[str, Any], number: str, value: int, severity: Severity
) -> None:
    finding = _judged(Thresholds(**thresholds), **{number: value})[name]
    assert finding.severity is severity
    assert (finding.action is None) == (severity is HEALTHY)
    assert finding.figures[number] == value


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("quiet", "severity"),
    [
        (MINUTE, HEALTHY),
        (HOUR - SECOND, HEALTHY),
        (HOUR, WARNING),
        (6 * HOUR - SECOND, WARNING),
        (6 * HOUR, CRITICAL),
        (30 * DAY, CRITICAL),
    ],
)
def test_no_activity_is_an_alarm_from_its_edges_on(quiet: timedelta, severity: Severity) -> None:
    long_ago = {"unfinished_since": NOW - 90 * DAY, "last_published_at": NOW - quiet}
    just_wanted = {"unfinished_since": NOW - quiet, "last_published_at": NOW - 90 * DAY}
    never_published = {"unfinished_since": NOW - quiet, "last_published_at": None}
    for times in (long_ago, just_wanted, never_published):
        finding = _judged(pending=1, claimable=1, **times)["recent_activity"]
        assert finding.severity is severity
        assert finding.figures["quiet_hours"] == round(quiet / HOUR, 2)
        assert ("nothing published" in finding.message) == (severity > HEALTHY)
    other = Thresholds(quiet_warning=quiet, quiet_critical=quiet + SECOND)
    finding = _judged(other, pending=1, **never_published)["recent_activity"]
    assert finding.severity is WARNING


@pytest.mark.parametrize(
    "work",
    [
        {"pending": 1, "claimable": 1, "unfinished_since": NOW - DAY},
        {"failed": 1, "unfinished_since": NOW - DAY},  # backs off, just now
        {"processing": 1, "unfinished_since": NOW - DAY},  # in the hands of a run that hangs
        {"processing": 1, "stale_claims": 1, "unfinished_since": NOW - DAY},
        {"unqueued": 1, "reconciled_at": NOW - 9 * HOUR, "inspected_at": NOW - 7 * HOUR},
        {"unqueued": 1, "reconciled_at": NOW - 7 * HOUR, "inspected_at": None},
        {"unqueued": 1, "reconciled_at": None, "inspected_at": None,
         "round_started_at": NOW - 7 * HOUR, "last_published_at": None},
        {"deleted": 1, "reconciled_at": NOW - 9 * HOUR, "inspected_at": NOW - 7 * HOUR},
        # Whatever came since was given up, one after the other.
        {"dead_letters": 3, "given_up_lately": 3, "given_up_lately_since": NOW - 8 * HOUR},
    ],
)  # fmt: skip
def test_whatever_is_wanted_and_not_published_for_hours_is_an_alarm(work: dict[str, Any]) -> None:
    assert _judged(**work)["recent_activity"].severity is CRITICAL
    fresh = _judged(**{**work, "published_last_hour": 1, "last_published_at": NOW - MINUTE})
    assert fresh["recent_activity"].severity is HEALTHY


@pytest.mark.parametrize(
    "work",
    [
        {},
        {"pending": 1, "claimable": 1, "unfinished_since": NOW - MINUTE},
        {"unqueued": 1},
        {"deleted": 1},
        {"dead_letters": 20, "waiting_for_person": 20},
        # Two that cannot be embedded are no system that embeds nothing.
        {"dead_letters": 2, "given_up_lately": 2, "given_up_lately_since": NOW - 8 * HOUR},
        # The server's clock was set back a little.
        {"pending": 1, "unfinished_since": NOW + MINUTE},
    ],
)
def test_a_quiet_night_is_no_alarm_though_work_came_a_minute_ago(work: dict[str, Any]) -> None:
    assert _judged(**work)["recent_activity"].severity is HEALTHY


def test_what_waits_for_a_person_is_a_warning_however_little() -> None:
    finding = _judged(dead_letters=1, waiting_for_person=1)["dead_letters"]
    assert finding.severity is WARNING
    assert "--force" in (finding.action or "")
    assert _judged(dead_letters=51, waiting_for_person=1)["dead_letters"].severity is CRITICAL
    without = _judged(dead_letters=51)["dead_letters"]
    assert "--force" not in (without.action or "")


@pytest.mark.parametrize(("ago", "severity"), [(DAY - SECOND, HEALTHY), (DAY, WARNING)])
def test_dead_letters_that_nobody_tries_again_are_a_warning(
    ago: timedelta, severity: Severity
) -> None:
    finding = _judged(dead_letters=1, recoverable_since=NOW - ago)["dead_letters"]
    assert finding.severity is severity
    assert ("recover_dead_letters" in (finding.action or "")) == (severity is WARNING)


@pytest.mark.parametrize(("ago", "severity"), [(DAY - SECOND, HEALTHY), (DAY, WARNING)])
def test_chunks_that_nobody_inspects_are_a_warning(ago: timedelta, severity: Severity) -> None:
    stopped = _judged(inspected_at=NOW - ago)["chunk_integrity"]
    never = _judged(inspected_at=None, round_started_at=NOW - ago)["chunk_integrity"]
    assert (stopped.severity, never.severity) == (severity, severity)
    assert _judged(inspected_at=NOW - ago, chunks=0)["chunk_integrity"].severity is HEALTHY
    assert _judged(inspected_at=NOW - ago, broken=1)["chunk_integrity"].severity is CRITICAL


def test_another_language_in_the_settings_is_a_warning_that_names_the_command() -> None:
    judged = _by_name(
        judge(QUIET_NIGHT, Worst(), DEFAULTS, Expected(model=MODEL, language="german"))
    )["search_words"]
    assert judged.severity is WARNING
    assert "german" in judged.message
    assert "english" in judged.message
    assert "switch-language" in (judged.action or "")


@pytest.mark.parametrize(
    ("numbers", "severity"),
    [
        ({"tokens_today": 799}, HEALTHY),
        ({"tokens_today": 800}, WARNING),
        ({"tokens_today": 700, "budget_spent_at": NOW, "pending": 3}, CRITICAL),
        ({"tokens_today": 700, "budget_spent_at": NOW}, HEALTHY),  # nothing waits any more
    ],
)
def test_a_budget_is_yellow_at_four_fifths_and_red_while_work_waits(
    numbers: dict[str, Any], severity: Severity
) -> None:
    expected = Expected(model=MODEL, tokens_a_day=1_000)
    judged = judge(replace(QUIET_NIGHT, **numbers), Worst(), DEFAULTS, expected)
    found = _by_name(judged)["budget"]
    assert found.severity is severity
    assert ("EMBEDDING_DAILY_BUDGET" in (found.action or "")) == (severity is not HEALTHY)
    without = _judged(**numbers)["budget"]
    assert (without.severity, "no budget is set" in without.message) == (HEALTHY, True)


def test_a_rate_that_is_too_low_does_not_read_as_enough() -> None:
    finding = _judged(completed=98_999, failed=1_001)["completion_rate"]
    assert (finding.severity, finding.message[:7]) == (WARNING, "98.99 %")
    assert _judged(completed=99_999, failed=1)["completion_rate"].message.startswith("99.99 %")
    assert _judged(completed=0)["completion_rate"].message.startswith("100.00 % of 0 recordings")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"pgvector_version": None}, "CREATE EXTENSION vector"),
        ({"pgvector_version": "0.6.2"}, "too old"),
        ({"live_model": "other"}, "switch-model"),
        ({"configuration_error": "OPENAI_API_KEY was refused", "configuration_error_at": NOW,
          "pending": 1}, "OPENAI_API_KEY was refused"),
        ({"configuration_error": "OPENAI_API_KEY was refused", "configuration_error_at": NOW,
          "processing": 1}, "OPENAI_API_KEY was refused"),
        ({"last_published_at": NOW + 6 * MINUTE}, "clock was set back"),
    ],
)  # fmt: skip
def test_a_configuration_that_lets_nothing_succeed_is_critical(
    numbers: dict[str, Any], said: str
) -> None:
    finding = _judged(**numbers)["configuration"]
    assert finding.severity is CRITICAL
    assert said in finding.message
    assert finding.action


@pytest.mark.parametrize(
    "numbers",
    [
        {"pgvector_version": "0.8.4"},
        {"pgvector_version": "0.10.1-dev"},
        {"pgvector_version": "1.0.0"},
        {"live_model": None},
        {"configuration_error": "refused", "configuration_error_at": NOW},  # and nothing is due
        {"last_published_at": NOW + SECOND},
    ],
)
def test_a_configuration_that_works_or_matters_to_nobody_is_healthy(
    numbers: dict[str, Any],
) -> None:
    assert _judged(**numbers)["configuration"].severity is HEALTHY


def test_a_wrong_setting_comes_first_and_hides_no_other_check() -> None:
    numbers = replace(QUIET_NIGHT, dead_letters=51)
    judged = judge(
        numbers, Worst(), DEFAULTS, Expected(model=None, error="OPENAI_API_KEY is unset")
    )
    findings = _by_name(judged)
    assert findings["configuration"].message == "OPENAI_API_KEY is unset"
    assert findings["configuration"].severity is findings["dead_letters"].severity is CRITICAL


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (TransientError("cannot connect"), "start the database server"),
        (ConfigurationError("the role may not"), "mend the setting"),
        (StatementTimeoutError("too long"), "statement_timeout"),
    ],
)
def test_a_database_that_cannot_be_read_is_critical(
    error: EmbeddingAssetsError, action: str
) -> None:
    judged = unreadable(error, setting_error="OPENAI_API_KEY is unset")
    (finding,) = judged.findings
    assert (judged.severity, judged.numbers) == (CRITICAL, None)
    assert finding.message == f"{error}; besides, OPENAI_API_KEY is unset"
    assert action in (finding.action or "")


# What is counted, from here on, in real databases.


@pytest.mark.parametrize(
    ("version", "severity"), [("0.8.5", HEALTHY), ("0.8.3", WARNING), ("0.6.2", CRITICAL)]
)
def test_a_pgvector_with_known_faults_is_a_warning_and_one_that_is_too_old_critical(
    version: str, severity: Severity
) -> None:
    finding = _judged(pgvector_version=version)["configuration"]
    assert finding.severity is severity
    assert (finding.action is None) == (severity is HEALTHY)
