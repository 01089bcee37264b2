"""What the formats of plain text have in common: lines, clocks, turns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How plain text of one recorder is recognised by its first lines, and read."""

    name: str
    recognises: Callable[[str], bool]
    recording: Callable[[str, Source, Notes], Recording]


@dataclass(slots=True)
class Turn:
    """What somebody said from a time on, over several lines."""

    line: int  # counted from 1
    speaker: str | None
    start: float | None
    lines: list[str] = field(default_factory=list)


def numbered(text: str) -> list[tuple[int, str]]:
    """The lines that are not empty, stripped, with their numbers."""
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line]


def seconds(clock: str) -> float:
    """Seconds of "HH:MM:SS" or "MM:SS"; digits alone."""
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return float(total)


def segments(turns: Iterable[Turn], notes: Notes) -> list[Segment]:
    """A segment for each turn that has words; one that cannot be stored is left out and told."""
    found: list[Segment] = []
    for turn in turns:
        if not turn.lines:
            continue
        try:
            made = checks.segment(
                len(found),
                checks.optional_name(turn.speaker, "speaker"),
                "\n".join(turn.lines),
                start=checks.seconds(turn.start, "time"),
                field="turn",
            )
        except checks.RefusedError as error:
            notes.add(error.field, f"{error.reason}; this turn was left out", turn.line)
        else:
            notes.at(made.position, turn.line)
            found.append(made)
    return found
