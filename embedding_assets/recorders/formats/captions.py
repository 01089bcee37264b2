"""Captions: WebVTT, as Zoom and Teams write it, and SRT, read as WebVTT."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Literal

import webvtt

from embedding_assets.engine.model import Recording, Segment
from embedding_assets.recorders import checks

# No pattern may look past the next "<": a cue of a megabyte of "<a" must not take minutes.
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
# Only the tags the formats know: whatever else stands between "<" and ">" was said.
_TAG = re.compile(
    r"</?(?:[cibu]|ruby|rt)(?:\.[^\s<>]*)?>|</?(?:v|lang|font)(?:[.\s][^<>]*)?>|<[\d:.]+>", re.I
)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|lrm|rlm|#\d{1,7}|#x[0-9a-f]{1,6});", re.I)
_NAMED = re.compile(r"([^:<>?!;\n]{1,80}):\s+(?=\S)")
_COMMAS = re.compile(r"\s*[\d:]+,\d+\s*-->\s*[\d:]+,\d+")
_NO_TEXT = ("NOTE", "STYLE", "REGION")
_ZOOM_STAMP = re.compile(r"GMT(\d{8}-\d{6})")
_ENDINGS = (".gz", ".vtt", ".srt", ".transcript", ".captions", ".cc")
MOST_NAME_WORDS = 6


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one voice says in one cue."""

    line: int
    start: float
    end: float
    voice: str | None
    said: str


def recording(text: str, name: str, kind: Literal["vtt", "srt"]) -> Recording:
    """A file of captions; id, title and (Zoom's stamp) date come from its name.

    Raises:
        checks.RefusedError: a cue cannot be read, or there is none.
    """
    turns = list(_turns(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))))
    names = _names(turns)
    stem = _stem(name)
    return Recording(
        recording_id=checks.recording_id(stem, "file name"),
        title=" ".join(stem.replace("_", " ").split()),
        segments=[_segment(position, turn, names) for position, turn in enumerate(turns)],
        source_platform=kind,
        recorded_at=_recorded_at(stem),
    )


def _turns(lines: list[str]) -> Iterator[_Turn]:
    """The turns of all cues. The parser silently drops bad cues, so their number is compared."""
    prepared, added = _prepared(lines)
    cues = webvtt.from_string("\n".join(prepared)).captions
    timed = [
        (number, line)
        for number, line in enumerate(prepared, 1 - added)
        if "-->" in line and not line.startswith("NOTE")
    ]
    if len(cues) != len(timed):
        wrong = next((number for number, line in timed if not _is_readable(line)), None)
        raise checks.RefusedError(
            None,
            "has an arrow (-->) but no times such as 00:00:01.000 --> 00:00:02.500: mend them,"
            " or write the arrow in a cue's text in another way",
            wrong,
        )
    for (number, _), cue in zip(timed, cues, strict=True):
        start, end = _clock(cue.start), _clock(cue.end)
        for voice, said in _voices(cue.raw_text):
            yield _Turn(number, start, end, voice, said)


def _is_readable(line: str) -> bool:
    return len(webvtt.from_string(f"WEBVTT\n\n{line}\ntext").captions) == 1


def _prepared(lines: list[str]) -> tuple[list[str], int]:
    """The file as WebVTT lines that the parser reads completely, and how many were put before them.

    SRT gets a header, and points instead of commas in its times. A cue's index becomes the empty
    line that ends the cue before. A block without times continues the cue before it, which has an
    empty line in its text: that line gets a space, so that it does not end the cue.
    """
    header = [] if lines[0].startswith("WEBVTT") else ["WEBVTT", ""]
    prepared = header + [x.replace(",", ".") if _COMMAS.match(x) else x for x in lines]
    in_cue = False
    gap: list[int] = []
    for number, line in enumerate(prepared):
        if not line:
            gap.append(number)
            continue
        if "-->" in line:
            in_cue = not line.startswith("NOTE")
        elif _is_index(prepared, number, bool(gap)):
            prepared[number] = ""
        elif gap and in_cue:
            in_cue = not line.startswith(_NO_TEXT) and "-->" not in _line(prepared, number + 1)
            for empty in gap if in_cue else ():
                prepared[empty] = " "
        gap = []
    return prepared, len(header)


def _is_index(lines: list[str], number: int, starts_block: bool) -> bool:
    """Tells a cue's number from a number that was said: "42" may be all of a cue's text."""
    if not lines[number].strip().isdecimal():
        return False
    after = number + 1
    while starts_block and after < len(lines) and not lines[after]:
        after += 1
    return "-->" in _line(lines, after)


def _line(lines: list[str], number: int) -> str:
    return lines[number] if number < len(lines) else ""


def _voices(raw: str) -> Iterator[tuple[str | None, str]]:
    """Who says what in one cue by its `<v Name>` tags; None where there is none."""
    before, *voices = _VOICE.split(raw)
    if _plain(before) or not voices:
        yield None, _plain(before)
    for voice, said in zip(voices[::2], voices[1::2], strict=True):
        yield _plain(voice), _plain(said)


def _plain(marked: str) -> str:
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _TAG.sub("", marked))
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _names(turns: Sequence[_Turn]) -> frozenset[str]:
    """The speakers' names: what stands before a colon, as in Zoom's "Name: text".

    A sentence can have a colon too. So it is a name only if it comes more than once, or if most
    cues have one.
    """
    plain = [turn.said for turn in turns if turn.voice is None]
    found = Counter(match[1] for said in plain if (match := _NAMED.match(said)))
    usual = found.total() * 2 >= len(plain)
    return frozenset(
        name
        for name, times in found.items()
        if len(name.split()) <= MOST_NAME_WORDS and (usual or times > 1)
    )


def _segment(position: int, turn: _Turn, names: frozenset[str]) -> Segment:
    speaker, said = turn.voice, turn.said
    named = _NAMED.match(said) if speaker is None else None
    if named and named[1] in names:
        speaker, said = named[1], said[named.end() :]
    try:
        return checks.segment(
            position,
            checks.optional_name(speaker, "cue.speaker"),
            said,
            start=checks.seconds(turn.start, "cue.start"),
            end=checks.seconds(turn.end, "cue.end"),
            field="cue",
        )
    except checks.RefusedError as error:
        raise checks.RefusedError(error.field, error.reason, turn.line) from None


def _recorded_at(stem: str) -> datetime | None:
    stamp = _ZOOM_STAMP.search(stem)
    try:
        return datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if stamp else None
    except ValueError:  # a stamp that is no date
        return None


def _clock(value: str) -> float:
    """Seconds of "HH:MM:SS.mmm", as the parser writes it."""
    hours, minutes, seconds = value.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _stem(name: str) -> str:
    stem = PurePath(name).name
    while stem.lower().endswith(_ENDINGS):
        stem = stem.rpartition(".")[0]
    return stem
