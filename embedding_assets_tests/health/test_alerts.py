"""When people are told, in which words, and that no channel misses anything or hears it twice."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_assets.engine.errors import TransientError
from embedding_assets.health.alerts import (
    LONGEST_TEXT,
    LOST_AFTER,
    MOST_WAITING,
    Alert,
    Decision,
    Report,
    State,
    backoff,
    decide,
    from_cursor,
    to_cursor,
)
from embedding_assets.health.findings import Finding, Health, Severity
from embedding_assets.health.judging import CHECKS, unreadable

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HEALTHY, WARNING, CRITICAL = Severity
NAME = "Embedding Assets"


def _finding(name: str, severity: Severity = HEALTHY, items: Sequence[str] = ()) -> Finding:
    action = f"mend {name}" if severity > HEALTHY else None
    return Finding(name, severity, f"{name} is {severity}", action, items=tuple(items))


def _health(now: datetime = START, /, **severities: Severity) -> Health:
    findings = tuple(_finding(name, severities.get(name, HEALTHY)) for name in CHECKS)
    return Health(now, findings, None)


class Clock:
    """Ticks a minute apart, with the cursor as all that is kept between them."""

    def __init__(self, *channels: str, settle: int = 10) -> None:
        self.now = START
        self.cursor: str | None = None
        self.channels = list(channels)
        self.settle = settle * MINUTE
        self.down: set[str] = set()  # channels that take nothing
        self.stuck: set[str] = set()  # channels whose runs do not end
        self.heard: dict[str, list[Alert]] = {}
        self.tried: list[str] = []
        self._reports: dict[str, Report] = {}

    @property
    def state(self) -> State:
        """What the cursor says."""
        state = from_cursor(self.cursor)
        assert state is not None
        return state

    def decide(self, health: Health) -> Decision:
        """One decision, as a sensor's tick makes it; nothing is remembered."""
        return decide(
            from_cursor(self.cursor),
            health,
            self.now,
            channels=self.channels,
            reports=self._reports,
            settle=self.settle,
            name=NAME,
        )

    def tick(self, health: Health | None = None, /, **severities: Severity) -> list[Alert]:
        """Decides, tries to send, and waits a minute; gives what was new for any channel."""
        decision = self.decide(health or _health(self.now, **severities))
        self.cursor = to_cursor(decision.state)
        heard = []
        for send in decision.sends:
            assert send.attempt not in self.tried, "a run key is remembered for ever"
            self.tried.append(send.attempt)
            self._reports[send.attempt] = self._try(send.channel)
            if self._reports[send.attempt] is Report.DELIVERED:
                self.heard.setdefault(send.channel, []).append(send.alert)
                heard.append(send.alert)
        self.now += MINUTE
        return heard

    def ticks(self, count: int, **severities: Severity) -> list[str]:
        """Titles of all that was heard in so many ticks."""
        return [alert.title for _ in range(count) for alert in self.tick(**severities)]

    def titles(self, channel: str) -> list[str]:
        """What a channel heard."""
        return [alert.title for alert in self.heard.get(channel, [])]

    def forget(self, attempt: str) -> None:
        """The run of this attempt is gone."""
        del self._reports[attempt]

    def _try(self, channel: str) -> Report:
        if channel in self.stuck:
            return Report.UNDERWAY
        return Report.FAILED if channel in self.down else Report.DELIVERED


# What is told, and when.


def test_a_healthy_start_is_not_worth_a_message() -> None:
    clock = Clock("slack")
    assert clock.ticks(30) == []


def test_what_gets_worse_is_told_at_the_next_tick_and_only_once() -> None:
    clock = Clock("slack")
    clock.tick()
    assert [a.title for a in clock.tick(dead_letters=WARNING)] == [f"{NAME}: warning: dead_letters"]
    assert clock.ticks(600, dead_letters=WARNING) == []
    (alert,) = clock.tick(dead_letters=CRITICAL)
    assert alert.title == f"{NAME}: critical: dead_letters"
    assert alert.severity is CRITICAL
    # It is the same trouble: it began with the warning.
    assert "dead_letters: critical, was warning, not healthy since 2026-11-24 08:01 UTC" in (
        alert.text
    )


def test_one_message_names_what_is_wrong_since_when_the_worst_three_and_what_helps() -> None:
    clock = Clock("slack")
    clock.tick()
    letters = Finding(
        "dead_letters",
        CRITICAL,
        "60 recordings given up",
        "embedding-assets retry --dead-letters",
        items=("r1: crashed: it died", "r2: crashed: it died", "r3: crashed: it died", "r4: no"),
    )
    found = {finding.name: finding for finding in _health(pending_backlog=WARNING).findings}
    found["dead_letters"] = letters
    (alert,) = clock.tick(Health(clock.now, tuple(found.values()), None))
    assert alert.title == f"{NAME}: critical: dead_letters, pending_backlog"
    assert alert.text == (
        "dead_letters: critical, not healthy since 2026-11-24 08:01 UTC\n"
        "60 recordings given up\n"
        "- r1: crashed: it died\n"
        "- r2: crashed: it died\n"
        "- r3: crashed: it died\n"
        "What helps: embedding-assets retry --dead-letters\n"
        "\n"
        "pending_backlog: warning, not healthy since 2026-11-24 08:01 UTC\n"
        "pending_backlog is warning\n"
        "What helps: mend pending_backlog"
    )


def test_a_number_that_swings_around_its_threshold_is_told_once() -> None:
    clock = Clock("slack")
    titles = []
    for severity in itertools.islice(itertools.cycle([WARNING, HEALTHY]), 240):
        titles += clock.ticks(1, dead_letters=severity)
    assert titles == [f"{NAME}: warning: dead_letters"]
    for severity in itertools.islice(itertools.cycle([CRITICAL, WARNING, HEALTHY]), 240):
        titles += clock.ticks(1, dead_letters=severity)
    assert titles[1:] == [f"{NAME}: critical: dead_letters"]


def test_that_all_is_well_is_told_when_it_has_held_and_how_long_it_lasted() -> None:
    clock = Clock("slack")
    clock.ticks(130, dead_letters=CRITICAL, stale_claims=WARNING)
    assert clock.ticks(10, stale_claims=WARNING) == []
    (alert,) = clock.tick(stale_claims=WARNING)
    assert alert.title == f"{NAME}: better: dead_letters"
    assert alert.severity is WARNING
    assert alert.text == (
        "dead_letters: healthy again, was critical since 2026-11-24 08:00 UTC\n"
        "dead_letters is healthy\n"
        "\n"
        "Still warning: stale_claims: stale_claims is warning"
    )
    assert clock.ticks(10) == []
    (alert,) = clock.tick()
    assert alert.title == f"{NAME}: all well again"
    assert alert.severity is HEALTHY
    # From 08:00 to the tick from which on it held, 141 minutes later.
    assert alert.text.endswith("Everything is healthy again, after 2 h 21 min.")
    assert clock.ticks(60) == []
    (alert,) = clock.tick(dead_letters=WARNING)
    assert "not healthy since 2026-11-24 11:32 UTC" in alert.text


def test_what_gets_better_step_by_step_has_to_hold_at_each() -> None:
    clock = Clock("slack")
    clock.tick(dead_letters=CRITICAL)
    # The last of these minutes alone was healthy: that has not held.
    assert clock.ticks(10, dead_letters=WARNING) == []
    assert clock.ticks(1) == [f"{NAME}: better: dead_letters"]
    assert clock.state.told["dead_letters"].severity is WARNING
    assert clock.ticks(10) == []
    assert clock.ticks(1) == [f"{NAME}: all well again"]


def test_without_a_time_to_settle_better_is_told_at_once() -> None:
    clock = Clock("slack", settle=0)
    clock.tick(dead_letters=CRITICAL)
    assert clock.ticks(1) == [f"{NAME}: all well again"]


def test_what_cannot_be_seen_while_the_database_is_away_is_neither_better_nor_worse() -> None:
    clock = Clock("slack")
    clock.tick(dead_letters=CRITICAL)
    away = unreadable(TransientError("cannot connect to Postgres"))
    (alert,) = clock.tick(away)
    assert alert.title == f"{NAME}: critical: configuration"
    assert "cannot connect to Postgres" in alert.text
    assert [clock.tick(away) for _ in range(60)] == [[]] * 60
    # It comes back, as it was: only the database is better.
    titles = clock.ticks(30, dead_letters=CRITICAL)
    assert titles == [f"{NAME}: better: configuration"]


@pytest.mark.parametrize("length", [10, 100, 400, 5_000])
def test_a_message_is_never_longer_than_every_channel_takes_and_leaves_no_check_out(
    length: int,
) -> None:
    findings = [
        Finding(name, CRITICAL, "é" * length, "y" * length, items=("x" * length,) * 3)
        for name in CHECKS
    ]
    (alert,) = Clock("slack").tick(Health(START, tuple(findings), None))
    assert len(alert.text) <= LONGEST_TEXT
    assert all(f"{name}: critical" in alert.text for name in CHECKS)
    assert alert.text.count("What helps: yyy") == len(CHECKS)
    (alone,) = Clock("slack").tick(Health(START, (findings[0],), None))
    assert len(alone.text) <= LONGEST_TEXT
    assert alone.text.count("\n- xxx") == 3


# Who is told.


def test_a_channel_that_is_new_hears_once_what_is_wrong_by_then() -> None:
    clock = Clock()
    clock.ticks(30, dead_letters=CRITICAL)
    clock.channels = ["slack"]
    (alert,) = clock.tick(dead_letters=CRITICAL)
    assert "dead_letters: critical, not healthy since 2026-11-24 08:00 UTC" in alert.text
    assert clock.ticks(30, dead_letters=CRITICAL) == []
    clock.channels = ["slack", "mail"]
    clock.ticks(30, dead_letters=CRITICAL)
    assert clock.titles("mail") == clock.titles("slack") == [f"{NAME}: critical: dead_letters"]


def test_a_channel_that_is_new_hears_nothing_of_what_is_over() -> None:
    clock = Clock()
    clock.ticks(30, dead_letters=CRITICAL)
    clock.ticks(30)
    clock.channels = ["slack"]
    assert clock.ticks(30) == []


@pytest.mark.parametrize("cursor", [None, "", "nonsense", "{}", '{"version": 2, "born_at": 1}'])
def test_without_a_readable_cursor_what_is_wrong_is_told_and_what_is_well_is_not(
    cursor: str | None,
) -> None:
    clock = Clock("slack")
    clock.cursor = cursor
    assert clock.ticks(1, dead_letters=WARNING) == [f"{NAME}: warning: dead_letters"]
    clock.cursor = cursor
    assert clock.ticks(1) == []


# That it arrives.


def test_a_channel_that_is_down_is_tried_until_it_is_up_and_the_others_do_not_wait() -> None:
    clock = Clock("slack", "mail")
    clock.down = {"mail"}
    clock.tick(dead_letters=CRITICAL)
    clock.ticks(120, dead_letters=CRITICAL)
    assert len(clock.titles("slack")) == 1
    assert clock.titles("mail") == []
    assert "1 alert waits for mail, after 7 failed attempts" in clock.decide(_health()).summary
    clock.down = set()
    clock.ticks(61, dead_letters=CRITICAL)
    assert clock.titles("mail") == clock.titles("slack")
    assert len(clock.tried) == 9


def test_attempts_are_1_2_4_up_to_60_minutes_apart_for_ever() -> None:
    clock = Clock("slack")
    clock.down = {"slack"}
    times = []
    for _ in range(600):
        known = len(clock.tried)
        clock.ticks(1, dead_letters=CRITICAL)
        if len(clock.tried) > known:
            times.append(clock.now)
    # The tick that learns of a failure is a minute after it, and waits from then on.
    apart = [(after - before) // MINUTE - 1 for before, after in itertools.pairwise(times)]
    assert apart == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60]
    assert backoff(10_000) == timedelta(hours=1)


def test_nothing_overtakes_an_alert_that_its_channel_has_not_taken() -> None:
    clock = Clock("slack", "mail")
    clock.down = {"mail"}
    clock.ticks(30, dead_letters=CRITICAL)
    clock.ticks(30)
    assert clock.titles("slack") == [f"{NAME}: critical: dead_letters", f"{NAME}: all well again"]
    clock.down = set()
    clock.ticks(70)
    assert clock.titles("mail") == clock.titles("slack")


def test_what_is_underway_is_not_sent_again_beside() -> None:
    clock = Clock("slack")
    clock.stuck = {"slack"}
    clock.ticks(600, dead_letters=CRITICAL)
    assert len(clock.tried) == 1


def test_a_run_that_is_gone_is_tried_again_after_a_while() -> None:
    clock = Clock("slack")
    clock.stuck = {"slack"}
    clock.tick(dead_letters=CRITICAL)
    clock.stuck = set()
    clock.forget(clock.tried[0])
    # It is not gone yet: Dagster may still be about to start it.
    assert clock.ticks(LOST_AFTER // MINUTE, dead_letters=CRITICAL) == []
    assert clock.ticks(3, dead_letters=CRITICAL) == [f"{NAME}: critical: dead_letters"]
    assert len(clock.tried) == 2


def test_what_waits_for_a_channel_goes_with_it() -> None:
    clock = Clock("slack", "mail")
    clock.down = {"mail"}
    clock.ticks(30, dead_letters=CRITICAL)
    clock.channels = ["slack"]
    clock.ticks(1, dead_letters=CRITICAL)
    assert clock.state.alerts == {}
    assert set(clock.state.queues) == {"slack"}


def test_a_cursor_stays_small_and_what_was_left_out_is_counted() -> None:
    clock = Clock("slack", "mail", settle=0)
    clock.down = {"mail"}
    longest = 0
    findings = tuple(_finding(name, CRITICAL, ["x" * 160] * 3) for name in CHECKS)
    for _ in range(100):
        clock.tick(Health(clock.now, findings, None))
        clock.tick()
        longest = max(longest, len(clock.cursor or ""))
    assert longest < 25_000
    assert len(clock.titles("slack")) == 200
    assert clock.titles("slack")[-1] == f"{NAME}: all well again"
    assert len(clock.state.queues["mail"].waiting) <= MOST_WAITING + 1
    left = clock.state.queues["mail"].left_out
    assert left >= 200 - MOST_WAITING - 1
    clock.down = set()
    clock.ticks(80)
    first, *others = clock.heard["mail"]
    note = f"{left} earlier alerts, from 2026-11-24 08:00 UTC on, were left out"
    assert first.text.startswith(note)
    assert not any("left out" in alert.text for alert in others)
    # The last ones, in order, each once.
    assert clock.titles("mail") == clock.titles("slack")[left:]
    assert len(to_cursor(clock.state)) < 1_000


def test_a_tick_that_is_repeated_asks_for_the_same_runs_and_one_after_a_reset_for_others() -> None:
    clock = Clock("slack")
    clock.tick()
    once = clock.decide(_health(dead_letters=CRITICAL))
    clock.now += MINUTE
    again = clock.decide(_health(dead_letters=CRITICAL))
    assert [send.attempt for send in again.sends] == [send.attempt for send in once.sends]
    # Something else by then is not taken for the same.
    other = clock.decide(_health(stale_claims=WARNING))
    assert other.sends[0].attempt != once.sends[0].attempt
    clock.cursor = None
    reset = clock.decide(_health(dead_letters=CRITICAL))
    assert reset.sends[0].attempt != once.sends[0].attempt


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(Severity), st.sampled_from(Severity), st.integers(0, 3)),
        max_size=40,
    )
)
def test_every_channel_hears_everything_once_and_in_order(
    history: list[tuple[Severity, Severity, int]],
) -> None:
    # Settling takes longer than the history: at most a handful of alerts, and none is left out.
    clock = Clock("never down", "slack", "mail", settle=60)
    clock.tick()
    for letters, claims, down in history:
        clock.down = {name for bit, name in ((1, "slack"), (2, "mail")) if down & bit}
        clock.tick(dead_letters=letters, stale_claims=claims)
    clock.down = set()
    clock.ticks(130)
    everything = clock.titles("never down")
    assert clock.titles("slack") == clock.titles("mail") == everything
    assert clock.state.alerts == {}
    assert not clock.state.told
    was_bad = any(severity > HEALTHY for *pair, _ in history for severity in pair)
    assert everything[-1:] == ([f"{NAME}: all well again"] if was_bad else [])
