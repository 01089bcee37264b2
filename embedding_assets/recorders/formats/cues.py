"""Finds the cues of a file of captions: WebVTT, SRT and YouTube's SBV.

pysubs2 and webvtt-py were tried. They drop the lines that identify cues, in which Webex names its
speakers, do not tell the line of a cue, and either lose or misplace what stands between cues.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["vtt", "srt", "sbv"]

_CLOCK = r"((?:\d{1,6}:)?\d{1,2}:\d{2}[.,]\d{1,3})"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")
_SBV_TIMES = re.compile(r"\s*(\d+:\d{2}:\d{2}\.\d{3}),(\d+:\d{2}:\d{2}\.\d{3})\s*")
# A line that was meant to be times, and not words with an arrow between them.
_MEANT_AS_TIMES = re.compile(r"\s*-?\d+:[\d:.,]*\s*-->|.*-->\s*-?\d+:[\d:.,]*\s*$")
# What stands above the times: a number, Webex's speaker, Teams' id, or an id of the file's maker.
_IDENTIFIER = re.compile(r'\d+|\d+ ".*" \(\d+\)|\S+/\d+(?:-\d+)?|[\da-fA-F]{8}-[\da-fA-F-]{20,}')
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_LANGUAGE = re.compile(r"Language:\s*([\w-]{2,20})\s*", re.I)


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from one time to another, in seconds; None where the times cannot be read."""

    line: int  # of its times, counted from 1
    identifier: str
    start: float | None
    end: float | None
    lines: tuple[str, ...]  # stripped, without empty ones


def cues(text: str, kind: Kind) -> Iterator[Cue]:
    """All cues in their order. A cue whose times cannot be read is one too: its words were said."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))]
    headers = [number for number, line in enumerate(lines) if _is_times(line, kind)]
    tops = [_top(lines, number, kind) for number in headers]
    for place, number in enumerate(headers):
        after = tops[place + 1] if place + 1 < len(headers) else len(lines)
        said = (
            _without_blocks(lines[number + 1 : after])
            if kind == "vtt"
            else lines[number + 1 : after]
        )
        start, end = _clocks(lines[number], kind)
        identifier = next((line for line in lines[tops[place] : number] if line), "")
        yield Cue(number + 1, identifier, start, end, tuple(line for line in said if line))


def language(text: str) -> str | None:
    """The language that the header of a WebVTT file names."""
    header = re.split(r"\n\s*\n", text.replace("\r\n", "\n"), maxsplit=1)[0]
    found = next(filter(None, map(_LANGUAGE.fullmatch, header.split("\n"))), None)
    return found[1] if found else None


def _is_times(line: str, kind: Kind) -> bool:
    if kind == "sbv":
        return _SBV_TIMES.fullmatch(line) is not None
    if "-->" not in line or _BLOCK.match(line):
        return False
    return bool(_TIMES.fullmatch(line) or _MEANT_AS_TIMES.match(line))


def _top(lines: list[str], number: int, kind: Kind) -> int:
    """Where the cue begins whose times are in a line: there, or with its identifier above."""
    above = number - 1
    while above >= 0 and not lines[above]:
        above -= 1
    if kind == "sbv" or above < 0 or _is_times(lines[above], kind):
        return number
    starts_block = above == 0 or not lines[above - 1]
    if above == number - 1:
        is_identifier = starts_block or _IDENTIFIER.fullmatch(lines[above]) is not None
    else:  # a number with empty lines below it
        is_identifier = starts_block and lines[above].isdecimal()
    return above if is_identifier else number


def _without_blocks(lines: list[str]) -> list[str]:
    """The words of a cue up to a comment or style, which is not said, nor is what stands below."""
    for number, line in enumerate(lines):
        if number > 0 and not lines[number - 1] and _BLOCK.match(line):
            return lines[:number]
    return lines


def _clocks(line: str, kind: Kind) -> tuple[float | None, float | None]:
    match = (_SBV_TIMES if kind == "sbv" else _TIMES).fullmatch(line)
    return (_seconds(match[1]), _seconds(match[2])) if match else (None, None)


def _seconds(clock: str) -> float | None:
    """Seconds of "HH:MM:SS.mmm" or "MM:SS,mmm"; None if there are more than 59 of a kind."""
    *hours, minutes, seconds = clock.replace(",", ".").split(":")
    if int(minutes) > 59 or float(seconds) >= 60:
        return None
    return int(hours[0] if hours else 0) * 3600 + int(minutes) * 60 + float(seconds)
