"""What agents are told: answers of a bounded length, to cite, what was said between marks."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, Field

from embedding_assets.engine.tokens import count
from embedding_assets.search import calls
from embedding_assets.search.links import link_at
from embedding_assets.search.passages import Passage
from embedding_assets.web.rendering import clock

Told = TypeVar("Told", bound=BaseModel)

MOST_TOKENS = 6000
"""Of an answer, as this project counts tokens; other models' counts differ by some per cent."""
TITLE_CHARACTERS, NAME_CHARACTERS, MOST_SPEAKERS = 200, 60, 20
PIECE_CHARACTERS = 4000  # of a long turn, so that it can be read on from its middle
OPEN, CLOSE = "<transcript>", "</transcript>"


class FoundPassage(BaseModel):
    """A passage that answers, with what to cite it by."""

    recording_id: str
    title: str | None
    date: str
    speaker: str | None = Field(description="Who says what matches best.")
    time: str = Field(description="When, from the call's start.")
    position: int = Field(description="Where; get_transcript reads on from there.")
    link: str | None = Field(description="Opens the recording there.")
    text: str


class Found(BaseModel):
    """Passages, best first."""

    passages: list[FoundPassage]
    left_out: int = Field(description="Further hits that did not fit: ask more narrowly.")
    notice: str | None


class KnownCall(BaseModel):
    """A call."""

    recording_id: str
    title: str | None
    date: str
    minutes: int | None
    platform: str | None
    speakers: list[str]
    further_speakers: int = Field(description="How many spoke beside these.")
    link: str | None


class CallList(BaseModel):
    """Calls, the newest first."""

    calls: list[KnownCall]
    next_cursor: str | None = Field(description="Give it as `cursor` for the calls after these.")


class TranscriptPart(BaseModel):
    """A part of a call."""

    recording_id: str
    title: str | None
    date: str
    link: str | None = Field(description="Opens the recording where the part begins.")
    text: str
    next_start: str | None = Field(description="Give it as `start` to read on; null at the end.")


def call_told(call: calls.Call) -> KnownCall:
    """What is known of a call."""
    return KnownCall(
        recording_id=call.recording_id,
        title=_clipped(call.title, TITLE_CHARACTERS),
        date=_date(call.recorded_at),
        minutes=None if call.duration_seconds is None else round(call.duration_seconds / 60),
        platform=call.source_platform,
        speakers=[_clipped(each, NAME_CHARACTERS) or "" for each in call.speakers[:MOST_SPEAKERS]],
        further_speakers=max(0, len(call.speakers) - MOST_SPEAKERS),
        link=call.link,
    )


def passage_told(passage: Passage) -> FoundPassage:
    """A passage, with what to cite it by."""
    hit, turn = passage.hit, passage.hit.turn
    return FoundPassage(
        recording_id=hit.recording_id,
        title=_clipped(hit.title, TITLE_CHARACTERS),
        date=_date(hit.recorded_at),
        speaker=_clipped(turn.speaker, NAME_CHARACTERS),
        time=clock(hit.said_at),
        position=turn.position,
        link=hit.link,
        text=fenced(map(_line, passage.turns)),
    )


def part_told(
    call: calls.Call, turns: list[calls.Said], position: int, offset: int
) -> TranscriptPart:
    """As many turns as an answer holds; a long one is cut, and goes on with the next part."""
    lines: list[str] = []
    room = MOST_TOKENS
    next_start = None
    for turn in turns:
        begin = offset if turn.position == position else 0
        while begin < len(turn.text) and next_start is None:
            piece = calls.Said(
                turn.position, turn.speaker, turn.start_seconds,
                turn.text[begin : begin + PIECE_CHARACTERS],
            )  # fmt: skip
            line = _line(piece)
            room -= count(line) + 2
            if room < 0 and lines:
                next_start = f"{turn.position}+{begin}" if begin else f"{turn.position}"
            else:
                lines.append(line)
                begin += PIECE_CHARACTERS
        if next_start is not None:
            break
    return TranscriptPart(
        recording_id=call.recording_id,
        title=_clipped(call.title, TITLE_CHARACTERS),
        date=_date(call.recorded_at),
        link=link_at(call.url, turns[0].start_seconds if turns else None),
        text=fenced(lines),
        next_start=next_start,
    )


def fenced(lines: Iterable[str]) -> str:
    """What was said, between marks that nothing in it can end: no `<` is left in the lines."""
    return "\n".join([OPEN, *map(_in_one_line, lines), CLOSE])


def _line(turn: calls.Said) -> str:
    time = f"[{clock(turn.start_seconds)}] " if turn.start_seconds is not None else ""
    who = _clipped(turn.speaker, NAME_CHARACTERS) or "somebody"
    return f"{time}{who}: {turn.text}"


def fitting(answers: list[Told]) -> list[Told]:
    """The first of them that an answer holds, but one at least."""
    room, shown = MOST_TOKENS, 0
    for each in answers:
        room -= count(each.model_dump_json()) + 20
        if room < 0 and shown:
            break
        shown += 1
    return answers[:shown]


def _date(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"


def _clipped(text: str | None, most: int) -> str | None:
    """A name or a title in one line, without what steers or hides, and not longer than that."""
    if text is None:
        return None
    shown = _in_one_line(text)
    return shown if len(shown) <= most else shown[:most] + "…"


def _in_one_line(text: str) -> str:
    """Nothing in it looks like a line of its own, or like a mark."""
    plain = "".join(c if c.isprintable() else " " for c in text.replace("<", "‹"))
    return " ".join(plain.split())
