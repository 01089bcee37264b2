"""When people are told that the system's health changed, in which words, and when to try again.

Nothing here reads a clock, a database or a channel: `decide` makes a new state of the old one. The
state is the cursor of the sensor `alert_on_health_change`, because an alert must get through when
the application's database does not work.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from embedding_assets.health.findings import Finding, Health, Severity
from embedding_assets.health.judging import CHECKS
from embedding_assets.health.numbers import in_utc

LONGEST_TEXT = 1_700  # Discord takes 2,000 characters, title included
LONGEST_ITEM = 160
# Layouts of a message, longest first: with or without the worst items, and characters a line. The
# first whose text fits is sent; the last has room for all checks.
_SHORTER_AND_SHORTER = ((True, 400), (False, 400), (False, 120), (False, 38))
MOST_WAITING = 10  # alerts that one channel's queue holds
LONGEST_BACKOFF = timedelta(hours=1)
LOST_AFTER = timedelta(minutes=5)  # a requested run that Dagster does not know was never launched


class Report(StrEnum):
    """The state of an attempt's run, the best first."""

    DELIVERED = "delivered"
    UNDERWAY = "underway"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Told:
    """What people were told of one check last, and whether it has been better since."""

    severity: Severity
    since: datetime  # since when the check has not been healthy
    better: Severity | None = None  # the worst it has been since `better_since`
    better_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """One message."""

    at: datetime
    title: str
    text: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Queue:
    """The alerts that one channel has not taken yet, oldest first, and how the first one fares."""

    waiting: tuple[str, ...] = ()  # ids of alerts
    failures: int = 0  # attempts that failed since the last delivery
    due_at: datetime | None = None  # when to try again; None: now
    asked_at: datetime | None = None  # when the present attempt's run was requested; None: no run
    left_out: int = 0  # alerts given up because too many waited
    left_out_since: datetime | None = None

    def attempt(self, channel: str) -> str:
        """A unique name of the first alert's present or next attempt."""
        return f"{self.waiting[0]}/{channel}/{self.failures + 1}"


@dataclass(frozen=True, slots=True)
class State:
    """All that is remembered from one tick to the next; as JSON, the sensor's cursor."""

    born_at: datetime
    version: Literal[1] = 1
    alerts_made: int = 0
    unhealthy_since: datetime | None = None
    told: dict[str, Told] = field(default_factory=dict)  # by check; those that are not healthy
    alerts: dict[str, Alert] = field(default_factory=dict)  # by id; those that still wait
    queues: dict[str, Queue] = field(default_factory=dict)  # by channel

    def attempts(self) -> list[str]:
        """The attempts that a run was requested for and whose outcome is not known yet."""
        return [queue.attempt(channel) for channel, queue in self.queues.items() if queue.asked_at]


@dataclass(frozen=True, slots=True)
class Send:
    """One attempt to bring one message to one channel."""

    attempt: str
    channel: str
    alert: Alert


@dataclass(frozen=True, slots=True)
class Decision:
    """The new state, and what to send now."""

    state: State
    sends: tuple[Send, ...]
    summary: str


_STATE = TypeAdapter(State)


def to_cursor(state: State) -> str:
    """The state as JSON; some ten kilobytes while a channel is down, a few hundred bytes else."""
    return _STATE.dump_json(state).decode()


def from_cursor(cursor: str | None) -> State | None:
    """The state of a cursor; None without one, and for one that this version cannot read."""
    if not cursor:
        return None
    try:
        return _STATE.validate_json(cursor)
    except ValidationError:
        return None


def decide(
    previous: State | None,
    health: Health,
    now: datetime,
    *,
    channels: Sequence[str],
    reports: Mapping[str, Report],
    settle: timedelta,
    name: str,
) -> Decision:
    """What to tell, to whom, and what to remember.

    Args:
        previous: the last tick's state; None: nobody was told anything yet.
        health: as it is now.
        now: the time, aware.
        channels: the names of all there are; what waits for others is dropped.
        reports: what became of `previous.attempts()`; an attempt without one has no run.
        settle: how long something must have been better before people are told.
        name: what titles begin with.
    """
    state = previous or State(born_at=now)
    queues = {
        channel: _reported(channel, state.queues[channel], reports, now)
        for channel in channels
        if channel in state.queues
    }
    new = [channel for channel in channels if channel not in state.queues]
    queues |= {channel: Queue() for channel in new}
    told, changes = _changes(state.told, health, now, settle)
    state = replace(state, queues=queues, told=told)
    if told and state.unhealthy_since is None:
        state = replace(state, unhealthy_since=min(each.since for each in told.values()))
    if changes:
        old = [channel for channel in channels if channel not in new]
        state = _with_alert(state, _alert(changes, state, health, now, name), old)
    present = [Change(f.name, f, None, told[f.name]) for f in health.findings if _is_bad(f)]
    if present:
        state = _with_alert(state, _alert(present, state, health, now, name), new)
    if not told:
        state = replace(state, unhealthy_since=None)
    return _send(_trimmed(state), now)


# What changed.


@dataclass(frozen=True, slots=True)
class Change:
    """One check, before and now; None is healthy."""

    name: str
    finding: Finding
    before: Told | None
    after: Told | None

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than what was told before."""
        return _severity(self.after) > _severity(self.before)


def _severity(told: Told | None) -> Severity:
    return Severity.HEALTHY if told is None else told.severity


def _is_bad(finding: Finding) -> bool:
    return finding.severity > Severity.HEALTHY


def _changes(
    told: Mapping[str, Told], health: Health, now: datetime, settle: timedelta
) -> tuple[dict[str, Told], list[Change]]:
    """What people know after this tick, by check, and what of it is news to them."""
    found = {finding.name for finding in health.findings}
    # A check that could not be evaluated is neither worse nor better: its settle time starts again.
    after = {
        name: replace(each, better=None, better_since=None)
        for name, each in told.items()
        if name not in found and name in CHECKS
    }
    changes = []
    for finding in health.findings:
        before = told.get(finding.name)
        known = _next(before, finding.severity, now, settle)
        if known is not None:
            after[finding.name] = known
        if _severity(known) is not _severity(before):
            changes.append(Change(finding.name, finding, before, known))
    return after, changes


def _next(before: Told | None, severity: Severity, now: datetime, settle: timedelta) -> Told | None:
    """What is known of a check after this tick; None: that it is healthy."""
    if before is None:
        return Told(severity, now) if severity > Severity.HEALTHY else None
    if severity > before.severity:
        return Told(severity, before.since)
    if severity == before.severity:
        return replace(before, better=None, better_since=None)
    better = severity if before.better is None else max(severity, before.better)
    since = before.better_since or now
    if now - since < settle:
        return replace(before, better=better, better_since=since)
    return Told(better, before.since) if better > Severity.HEALTHY else None


# What it says.


def _alert(
    changes: Sequence[Change], state: State, health: Health, now: datetime, name: str
) -> Alert:
    worse = [change for change in changes if change.is_worse]
    if worse:
        severity = max(change.finding.severity for change in worse)
        about = f"{severity}: {', '.join(change.name for change in worse)}"
    else:
        severity = max((each.severity for each in state.told.values()), default=Severity.HEALTHY)
        names = ", ".join(change.name for change in changes)
        about = f"better: {names}" if state.told else "all well again"
    return Alert(now, f"{name}: {about}", _text(changes, state, health, now), severity)


def _text(changes: Sequence[Change], state: State, health: Health, now: datetime) -> str:
    """The worse first; without the items, and cut, where it would be too long."""
    in_order = sorted(changes, key=lambda change: -change.finding.severity.rank)
    news = {change.name for change in changes}
    closing = [
        f"Still {state.told[finding.name].severity}: {finding.name}: {finding.message}"
        for finding in health.findings
        if finding.name in state.told and finding.name not in news
    ]
    if not state.told and state.unhealthy_since is not None:
        ended_at = max(c.before.better_since or now for c in changes if c.before is not None)
        closing = [f"Everything is healthy again, after {_span(ended_at - state.unhealthy_since)}."]
    for with_items, longest in _SHORTER_AND_SHORTER:
        parts = [_part(change, with_items=with_items) for change in in_order]
        text = "\n\n".join(_cut_lines(lines, longest) for lines in [*parts, closing] if lines)
        if len(text) <= LONGEST_TEXT:
            break
    return _cut(text, LONGEST_TEXT)


def _part(change: Change, *, with_items: bool) -> list[str]:
    finding = change.finding
    if not change.is_worse:
        was = f"was {_severity(change.before)}"
        since = "" if change.before is None else f" since {in_utc(change.before.since)}"
        return [f"{change.name}: {_severity(change.after)} again, {was}{since}", finding.message]
    was = "" if change.before is None else f", was {change.before.severity}"
    since = "" if change.after is None else f", not healthy since {in_utc(change.after.since)}"
    lines = [f"{change.name}: {finding.severity}{was}{since}", finding.message]
    if with_items:
        lines += [_cut(f"- {item}", LONGEST_ITEM) for item in finding.items[:3]]
    if finding.action is not None:
        lines.append(f"What helps: {finding.action}")
    return lines


def _cut_lines(lines: Sequence[str], longest: int) -> str:
    return "\n".join(_cut(" ".join(line.split()), longest) for line in lines)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _span(span: timedelta) -> str:
    minutes = max(int(span / timedelta(minutes=1)), 0)
    days, hours = minutes // 1440, minutes // 60 % 24
    return (f"{days} d " if days else "") + f"{hours} h {minutes % 60:02} min"


# Which channel has taken which alert.


def _with_alert(state: State, alert: Alert, channels: Sequence[str]) -> State:
    """The alert at the end of these channels' queues."""
    if not channels:
        return state
    # Dagster remembers run keys for ever. So a repeated tick must make the same id, and a state
    # that starts anew after a lost cursor must make other ids than before.
    digest = hashlib.sha256(alert.title.encode()).hexdigest()[:6]
    id = f"{state.born_at:%Y%m%dT%H%M%S%f}-{state.alerts_made + 1}-{digest}"
    queues = {
        channel: replace(queue, waiting=(*queue.waiting, id)) if channel in channels else queue
        for channel, queue in state.queues.items()
    }
    alerts = {**state.alerts, id: alert}
    return replace(state, alerts_made=state.alerts_made + 1, alerts=alerts, queues=queues)


def _reported(channel: str, queue: Queue, reports: Mapping[str, Report], now: datetime) -> Queue:
    """The queue after the outcome of its attempt."""
    if queue.asked_at is None:
        return queue
    report = reports.get(queue.attempt(channel))
    if report is Report.DELIVERED:
        return Queue(queue.waiting[1:])
    is_lost = report is None and now - queue.asked_at > LOST_AFTER
    if report is Report.FAILED or is_lost:
        failures = queue.failures + 1
        due_at = now + backoff(failures)
        return replace(queue, failures=failures, due_at=due_at, asked_at=None)
    return queue


def backoff(failures: int) -> timedelta:
    """How long to wait after so many failures in a row: 1, 2, 4, … up to 60 minutes."""
    return min(timedelta(minutes=2 ** min(failures - 1, 10)), LONGEST_BACKOFF)


def _trimmed(state: State) -> State:
    """Drops and counts the oldest alerts of a queue that is too long for the cursor."""
    queues = {}
    for channel, queue in state.queues.items():
        too_many = len(queue.waiting) - MOST_WAITING
        # An alert that is being sent is not dropped: its text says how many were dropped.
        if too_many > 0 and queue.asked_at is None:
            since = queue.left_out_since or state.alerts[queue.waiting[0]].at
            queue = replace(  # noqa: PLW2901
                queue,
                waiting=queue.waiting[too_many:],
                left_out=queue.left_out + too_many,
                left_out_since=since,
            )
        queues[channel] = queue
    kept = {id for queue in queues.values() for id in queue.waiting}
    alerts = {id: alert for id, alert in state.alerts.items() if id in kept}
    return replace(state, queues=queues, alerts=alerts)


def _send(state: State, now: datetime) -> Decision:
    """Starts at most one attempt a channel, so that alerts arrive in their order."""
    sends, queues = [], {}
    for channel, queue in state.queues.items():
        queues[channel] = queue
        is_due = queue.due_at is None or queue.due_at <= now
        if queue.waiting and queue.asked_at is None and is_due:
            alert = _with_what_was_left_out(state.alerts[queue.waiting[0]], queue)
            sends.append(Send(queue.attempt(channel), channel, alert))
            queues[channel] = replace(queue, asked_at=now)
    state = replace(state, queues=queues)
    return Decision(state, tuple(sends), _summary(state))


def _with_what_was_left_out(alert: Alert, queue: Queue) -> Alert:
    if queue.left_out_since is None:
        return alert
    note = (
        f"{queue.left_out} earlier alerts, from {in_utc(queue.left_out_since)} on, were left out:"
        " this channel took none for too long."
    )
    return replace(alert, text=f"{note}\n\n{alert.text}")


def _summary(state: State) -> str:
    """A line for the tick: what people know, and what waits for which channel."""
    severity = max((each.severity for each in state.told.values()), default=Severity.HEALTHY)
    names = f" ({', '.join(state.told)})" if state.told else ""
    lines = [f"last alert: {severity}{names}"]
    for channel, queue in state.queues.items():
        if not queue.waiting:
            continue
        many = len(queue.waiting)
        line = f"{many} alert{'s wait' if many > 1 else ' waits'} for {channel}"
        if queue.failures:
            line += f", after {queue.failures} failed attempts"
        if queue.asked_at is None and queue.due_at is not None:
            line += f", again at {in_utc(queue.due_at)}"
        lines.append(line)
    return "; ".join(lines)
