"""What `embedding-assets monitor` shows: the system at one moment, or again every few seconds."""

import contextlib
import json
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from embedding_assets.health.findings import Finding, Health, Severity
from embedding_assets.health.numbers import DeadLetter, Numbers
from embedding_assets.health.system import system_health
from embedding_assets.printing import printable
from embedding_assets.server.connections import application_url
from embedding_assets.settings import Settings

INTERRUPTED = 130  # exit code of a monitor that was interrupted before its first look
COMMAND_COLUMNS = len("embedding-assets retry --dead-letters --force")
PIPE_COLUMNS = 100_000  # no line is ever folded in a pipe
COLORS = {Severity.HEALTHY: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}


@dataclass(frozen=True, slots=True)
class QuickAction:
    """A command that helps right now, and what it does."""

    command: str
    effect: str


def monitor(settings: Settings, *, every: int | None, as_json: bool) -> int:
    """Shows the system's health on standard output, once or every so many seconds.

    Returns:
        The exit code: 0 healthy, 1 warning, 2 critical, at the last look.
    """
    console = Console(highlight=False)
    if every is None:
        health = system_health(settings)
        if as_json:
            _write(json.dumps(document(health), indent=2, default=_iso))
        else:
            show(health, console)
        return health.severity.rank
    # SIGTERM, too, has to leave the terminal as it was.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    last = None
    with contextlib.suppress(KeyboardInterrupt), _display(console, every, as_json) as display:
        for last in _looks(settings, every):
            display(last)
    if last is None:
        return INTERRUPTED
    if console.is_interactive and not as_json:
        show(last, console)  # what the window held went with it
    return last.severity.rank


def _looks(settings: Settings, every: int) -> Iterator[Health]:
    yield system_health(settings)
    # From now on it only looks: an embedded server that somebody stops stays stopped.
    url = SecretStr(application_url(settings))
    settings = settings.model_copy(update={"database_url": url})
    while True:
        time.sleep(every)
        yield system_health(settings)


@contextlib.contextmanager
def _display(console: Console, every: int, as_json: bool) -> Iterator[Callable[[Health], None]]:
    """What to do with each look: draw it in place, or print it after the ones before."""
    if as_json:
        yield lambda health: _write(json.dumps(document(health), default=_iso))
    elif console.is_interactive:
        # Refreshed between looks as well, so that it follows the window's size.
        with Live(Text("looking"), console=console, screen=True, refresh_per_second=1) as live:
            yield lambda health: live.update(_Screenful(picture(health), every), refresh=True)
    else:

        def print_on(health: Health) -> None:
            show(health, console)
            _write("")

        yield print_on


def show(health: Health, console: Console) -> None:
    """Prints it: wrapped and coloured in a terminal, else plain, a fact a line, nothing cut."""
    if console.is_terminal:
        console.print(picture(health))
        return
    plain = Console(width=PIPE_COLUMNS, highlight=False, color_system=None)
    with plain.capture() as captured:
        plain.print(picture(health, line_each=True))
    _write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def document(health: Health) -> dict[str, Any]:
    """Everything, for JSON apart from the times."""
    return {
        **health.as_dict(),
        "recordings": None if health.numbers is None else health.numbers.by_status,
        "due": None if health.numbers is None else health.numbers.due,
        "quick_actions": [asdict(action) for action in quick_actions(health)],
    }


def quick_actions(health: Health) -> list[QuickAction]:
    """The commands that help right now, ready to be pasted into a shell."""
    numbers = health.numbers
    if numbers is None:
        return [QuickAction("embedding-assets init", "starts what is down, migrates")]
    unhealthy = {f.name for f in health.findings if f.severity > Severity.HEALTHY}
    return [
        *_to_embed(health, numbers, unhealthy),
        *_for_dead_letters(health.dead_letters, numbers),
        *_to_mend(unhealthy),
    ]


def _to_embed(health: Health, numbers: Numbers, unhealthy: set[str]) -> Iterator[QuickAction]:
    model = next(f.figures["model"] for f in health.findings if f.name == "configuration")
    if None not in {model, numbers.live_model} and model != numbers.live_model:
        yield QuickAction("embedding-assets switch-model", "embeds all with the new model")
    if numbers.due:
        when = "if mended, " if "configuration" in unhealthy else ""
        yield QuickAction("embedding-assets run", f"{when}embeds what is due")
    if "recent_activity" in unhealthy:
        yield QuickAction("embedding-assets dev", "runs Dagster, if none does")


def _for_dead_letters(letters: Sequence[DeadLetter], numbers: Numbers) -> Iterator[QuickAction]:
    if letters:
        force = " --force" if letters[0].waits_for_person else ""
        yield QuickAction(
            f"embedding-assets retry --now{force} {shlex.quote(letters[0].recording_id)}",
            "tries the first dead letter",
        )
        force = " --force" if numbers.waiting_for_person else ""
        yield QuickAction(
            f"embedding-assets retry --dead-letters{force}",
            "makes all dead letters due",
        )


def _to_mend(unhealthy: set[str]) -> Iterator[QuickAction]:
    if "chunk_integrity" in unhealthy:
        yield QuickAction("embedding-assets retry --broken --now", "embeds what is broken again")


def picture(health: Health, *, line_each: bool = False) -> RenderableType:
    """All of it, to be printed; the health first.

    Args:
        health: what to show.
        line_each: each fact on a line of its own, for grep; else laid out to be read.
    """
    parts = [_headline(health), *_section("Health", _findings(health))]
    if health.numbers is not None:
        parts += _section("Queue and activity", _figures(health.numbers), _chunks(health.numbers))
    if health.costs:
        parts += _section("Cost today (UTC)", _costs(health))
    if health.runs_in_flight:
        parts += _section("Runs in flight", _runs(health))
    if health.numbers is not None and health.dead_letters:
        told, all_of_them = len(health.dead_letters), health.numbers.dead_letters
        heading = (
            "Dead letters" if told == all_of_them else f"Dead letters, {told} of {all_of_them:,}"
        )
        parts += _section(heading, *_dead_letters(health.dead_letters, line_each=line_each))
    actions = quick_actions(health)
    if actions:
        parts += _section("Quick actions", *(_action(action) for action in actions))
    return Group(*parts)


def _section(heading: str, *parts: RenderableType) -> list[RenderableType]:
    return [Text(), Text(heading, style="bold"), *(Padding.indent(part, 2) for part in parts)]


def _headline(health: Health) -> RenderableType:
    severity = health.severity
    return Text.assemble(
        (severity.upper(), f"bold reverse {COLORS[severity]}"),
        f" at {health.checked_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )


def _findings(health: Health) -> RenderableType:
    grid = _grid(Column(width=8), Column(width=15), Column(overflow="fold"))  # of one width always
    told: set[str] = {str(letter) for letter in health.dead_letters}  # in a section of their own
    for finding in health.findings:
        color = COLORS[finding.severity]
        grid.add_row(Text(finding.severity, color), finding.name, _text(finding.message))
        if finding.action is not None:
            action = Text.assemble(
                ("do:", "bold"), f" {_on_one_line(finding.action)}", overflow="fold"
            )
            grid.add_row("", "", action)
        for item in _items(finding, told):
            grid.add_row("", "", _text(item, "dim"))
            told.add(item)
    return grid


def _items(finding: Finding, told: set[str]) -> list[str]:
    is_worth = finding.severity > Severity.HEALTHY
    return [item for item in finding.items if is_worth and item not in told]


def _figures(numbers: Numbers) -> RenderableType:
    states = [
        *((state, f"{recordings:,}") for state, recordings in numbers.by_status.items()),
        ("due now", f"{numbers.due:,}"),
    ]
    activity = [
        ("recordings published, last hour", f"{numbers.published_last_hour:,}"),
        ("chunks embedded, last hour", f"{numbers.embedded_last_hour:,}"),
        ("failed attempts, last hour", f"{numbers.failures_last_hour:,}"),
        ("API requests, today (UTC)", f"{numbers.requests_today:,}"),
        ("tokens, today (UTC)", f"{numbers.tokens_today:,}"),
        ("cost, today (UTC)", _cost(numbers)),
    ]
    # Of one width while the numbers change.
    grid = _grid(
        Column(width=11),
        Column(width=11, justify="right"),
        Column(width=2),
        Column(width=31),
        Column(width=13, justify="right"),
    )
    for (state, recordings), (what, figure) in zip(states, activity, strict=True):
        grid.add_row(state, recordings, "", what, figure)
    return grid


def _chunks(numbers: Numbers) -> RenderableType:
    model = numbers.live_model
    reads = "no model yet" if model is None else _on_one_line(model)
    return Text(f"{numbers.chunks:,} chunks; search reads {reads}", overflow="fold")


def _cost(numbers: Numbers) -> str:
    if numbers.cost_today_usd is not None:
        return f"${numbers.cost_today_usd:,.4f}"
    return "price unknown" if numbers.tokens_today else "$0.0000"


def _costs(health: Health) -> RenderableType:
    grid = _grid(
        Column("model", overflow="fold"),
        Column("lane"),
        Column("requests", justify="right"),
        Column("tokens", justify="right"),
        Column("cost", justify="right"),
        has_heading=True,
    )
    for each in health.costs:
        cost = "price unknown" if each.cost_usd is None else f"${each.cost_usd:,.4f}"
        grid.add_row(_text(each.model), each.lane, f"{each.requests:,}", f"{each.tokens:,}", cost)
    return grid


def _runs(health: Health) -> RenderableType:
    grid = _grid(
        Column("run", overflow="fold"),
        Column("holds", justify="right"),
        Column("since (UTC)"),
        Column("lease"),
        has_heading=True,
    )
    for run in health.runs_in_flight:
        left = run.lease_expires_at - health.checked_at
        is_over = left < timedelta(0)
        lease = f"ended {_span(-left)} ago" if is_over else f"{_span(left)} left"
        grid.add_row(
            _text(run.run_id),
            f"{run.recordings:,}",
            "" if run.holds_since is None else f"{run.holds_since.astimezone(UTC):%Y-%m-%d %H:%M}",
            Text(lease, COLORS[Severity.WARNING if is_over else Severity.HEALTHY]),
        )
    return grid


def _dead_letters(letters: Sequence[DeadLetter], *, line_each: bool) -> Iterator[RenderableType]:
    for letter in letters:
        waits = letter.waits_for_person
        head = Text.assemble(
            _text(letter.recording_id, "bold"),
            f"  {_count(letter.attempts, 'attempt')},"
            f" {_count(letter.recoveries, 'recovery', 'recoveries')}, ",
            ("waits for a person", "red") if waits else "waits for recover_dead_letters",
            overflow="fold",
        )
        error = _text(f"{letter.error_kind}: {letter.last_error}")
        if line_each:
            yield head + ": " + error
        else:
            yield head
            yield Padding.indent(error, 2)


def _action(action: QuickAction) -> RenderableType:
    command = _text(f"{action.command:<{COMMAND_COLUMNS}}", "cyan")
    return Text.assemble(command, (f"  # {action.effect}", "dim"), overflow="fold")


def _grid(*columns: Column, has_heading: bool = False) -> Table:
    return Table(
        *columns,
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=has_heading,
        header_style="dim",
    )


def _text(text: str, style: str = "") -> Text:
    return Text(_on_one_line(text), style, overflow="fold")


def _on_one_line(text: str) -> str:
    return printable(text).replace("\n", " ")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _span(span: timedelta) -> str:
    """In the largest unit that it fills."""
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if span.total_seconds() >= seconds:
            return f"{span.total_seconds() // seconds:.0f} {unit}"
    return f"{span.total_seconds():.0f} s"


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _write(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (what a script reads, as it is)


class _Screenful:
    """As much as the window holds, and a line that says so."""

    def __init__(self, whole: RenderableType, every: int) -> None:
        self._whole = whole
        self._every = every

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        room = options.size.height - 1
        footer = f"every {self._every} s; Ctrl-C ends it"
        if len(lines) > room:
            footer += f"; {len(lines) - room} more lines in a taller window"
        for line in lines[:room]:
            yield from line
            yield Segment.line()
        yield Text(footer, style="dim", no_wrap=True, overflow="crop")
