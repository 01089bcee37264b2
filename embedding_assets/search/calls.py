"""Published calls, the newest first, and what was said in one, turn by turn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from embedding_assets.engine.database import Connection
from embedding_assets.search.links import link_at
from embedding_assets.search.search import Filters
from embedding_assets.search.statements import sql
from embedding_assets.search.turns import label_length, turns_of

LATELY = 1000  # calls whose platforms are offered
LONGEST_REPEATED = 2000  # characters

Marks = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call; None where its recorder does not say."""

    recording_id: str
    title: str | None
    recorded_at: datetime | None
    duration_seconds: float | None
    url: str | None
    source_platform: str | None
    chunk_count: int
    speakers: tuple[str, ...]

    @property
    def link(self) -> str | None:
        """Opens the recording."""
        return link_at(self.url, None)


@dataclass(frozen=True, slots=True)
class Said:
    """What one speaker said in one turn; `marks` are places in `text`."""

    position: int
    speaker: str | None
    start_seconds: float | None
    text: str
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a call, from and to a position or a second, both included; None: to its end.

    A turn that is being spoken at the first second is in it, and so is one whose time is not known.
    """

    first_position: int | None = None
    last_position: int | None = None
    from_seconds: float | None = None
    until_seconds: float | None = None

    def of(self, turns: Sequence[Said]) -> list[Said]:
        """Those of a call's turns that are in it."""
        ends = [*(turn.start_seconds for turn in turns[1:]), None]
        return [turn for turn, end in zip(turns, ends, strict=False) if self._has(turn, end)]

    def _has(self, turn: Said, end: float | None) -> bool:
        at = turn.start_seconds
        return (
            (self.first_position is None or turn.position >= self.first_position)
            and (self.last_position is None or turn.position <= self.last_position)
            and (self.from_seconds is None or end is None or end > self.from_seconds)
            and (self.until_seconds is None or at is None or at <= self.until_seconds)
        )


def calls(
    connection: Connection,
    filters: Filters | None = None,
    *,
    limit: int,
    before: tuple[datetime | None, str] | None = None,
) -> list[Call]:
    """The newest calls that the filters and the transaction's reader leave.

    Args:
        connection: in a transaction of `access.reading`.
        filters: what to narrow the list to.
        limit: the most calls.
        before: date and id of the last call of the page before.
    """
    at, recording_id = before or (None, None)
    rows = sql.calls(
        connection,
        filters=(filters or Filters()).as_json(),
        before_at=at,
        before_id=recording_id,
        limit=limit,
    )
    return [Call(**{**row._asdict(), "speakers": tuple(row.speakers)}) for row in rows]


def call(connection: Connection, recording_id: str) -> Call | None:
    """One call; None if there is none that the transaction's reader may see."""
    found = calls(connection, Filters(recordings=[recording_id]), limit=1)
    return found[0] if found else None


def transcript(
    connection: Connection,
    recording_id: str,
    window: Window | None = None,
    marks: Mapping[int, Marks] | None = None,
) -> tuple[Call, list[Said]] | None:
    """A call and what was said in it, in order; None if there is no such call for this reader.

    Args:
        connection: in a transaction of `access.reading`.
        recording_id: the call's.
        window: the part that is wanted; None: all.
        marks: places in chunks, by their index, that are marked in the turns.
    """
    known = call(connection, recording_id)
    if known is None:
        return None
    part = window or Window()
    rows = list(sql.chunks_of(connection, recording_id=recording_id, **asdict(part)))
    return known, part.of(said(rows, marks or {}))


def platforms(connection: Connection) -> list[str]:
    """The recorders that the reader's newest calls came from."""
    return [row.source_platform for row in sql.platforms(connection, among=LATELY)]


def said(rows: Sequence[Any], marks: Mapping[int, Marks]) -> list[Said]:
    """The turns of chunks that follow each other, each once, put together where they were cut."""
    repeated = _repeated(rows)
    marked = _marked_once(rows, repeated, marks)
    turns: list[Said] = []
    for row, beginning in zip(rows, repeated, strict=True):
        for piece in _new_pieces(row, beginning, marked.get(row.chunk_index, ())):
            if turns and turns[-1].position == piece.position:
                turns[-1] = _joined(turns[-1], piece)
            else:
                turns.append(piece)
    return turns


def _repeated(rows: Sequence[Any]) -> list[int]:
    """How many characters at each chunk's start the chunk before it ends with."""
    found = []
    for before, row in zip([None, *rows], rows, strict=False):
        if row.repeated is not None:
            found.append(row.repeated)
        elif before is None:
            found.append(0)
        else:  # an older version did not say
            most = min(len(before.chunk_text), len(row.chunk_text), LONGEST_REPEATED)
            ends = (n for n in range(most, 0, -1) if before.chunk_text.endswith(row.chunk_text[:n]))
            end = next(ends, 0)
            found.append(end + (end > 0 and row.chunk_text[end : end + 1] == "\n"))
    return found


def _new_pieces(row: Any, repeated: int, marks: Marks) -> Iterator[Said]:
    """What a chunk says that the chunk before did not."""
    text = row.chunk_text
    turns = turns_of(row)
    ends = [turn.offset - 1 for turn in turns[1:]] + [len(text)]  # without the line feed
    for before, turn, end in zip([None, *turns], turns, ends, strict=False):
        start = max(turn.offset + label_length(text, turn, before), repeated)
        if start < end:
            inside = tuple((a - start, b - start) for a, b in marks if start <= a and b <= end)
            yield Said(turn.position, turn.speaker, turn.start_seconds, text[start:end], inside)


def _joined(before: Said, after: Said) -> Said:
    shift = len(before.text)
    moved = tuple((a + shift, b + shift) for a, b in after.marks)
    return replace(before, text=before.text + after.text, marks=before.marks + moved)


def _marked_once(
    rows: Sequence[Any], repeated: Sequence[int], marks: Mapping[int, Marks]
) -> dict[int, Marks]:
    """The marks, with those in what a chunk repeats put where the chunk before says it."""
    found = {index: set(places) for index, places in marks.items()}
    for (before, row), beginning in zip(pairwise(rows), repeated[1:], strict=True):
        end = beginning
        if end and row.chunk_text[end - 1] == "\n" and end in (row.turn_offsets or ()):
            end -= 1
        shift = len(before.chunk_text) - end
        for a, b in marks.get(row.chunk_index, ()):
            if b <= end and a + shift >= 0:
                found.setdefault(before.chunk_index, set()).add((a + shift, b + shift))
    return {index: sorted(places) for index, places in found.items()}
