"""Fathom's transcript as it is copied or downloaded: title, link, and turns headed "0:00 - Name".

Form: files as Fathom writes them. The date has no year, so that it is not known.
"""

import re

from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import text
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.formats.text import TextFormat, Turn
from embedding_assets.recorders.model import Recording

_LINK = re.compile(r"VIEW RECORDING - (?:(\d+) mins?)?.{0,100}?(https?://\S{1,500})?")
_TURN = re.compile(r"@?((?:\d{1,3}:)?\d{1,2}:\d{2}) - (.{1,254}?)(?:\s\(([^()]{1,200})\))?")
_DATED = re.compile(r"(.+) - [A-Z][a-z]{2,8} \d{1,2}")


def _recognises(head: str) -> bool:
    lines = [line for _, line in text.numbered(head)[:200]]
    return any(_LINK.fullmatch(line) for line in lines[1:4]) and any(
        _TURN.fullmatch(line) for line in lines
    )


def _recording(content: str, source: Source, notes: Notes) -> Recording:
    lines = text.numbered(content)
    link = next(found for _, line in lines if (found := _LINK.fullmatch(line)))
    turns: list[Turn] = []
    for number, line in lines:
        match = _TURN.fullmatch(line)
        if match:
            turns.append(Turn(number, match[2], text.seconds(match[1])))
        elif turns and line != "---":
            turns[-1].lines.append(line)
    dated = _DATED.fullmatch(lines[0][1])
    if dated:
        notes.add("date", "has no year: it was left out", lines[0][0])
    return source.recording(
        "fathom_text",
        title=dated[1] if dated else lines[0][1],
        duration_seconds=float(link[1]) * 60 if link[1] else None,
        url=link[2],
        segments=text.segments(turns, notes),
    )


FORMAT = TextFormat("Fathom's text", _recognises, _recording)
