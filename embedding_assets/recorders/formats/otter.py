"""Otter's export as text: title, date, speakers, and turns headed by a name and a time.

Form: https://help.otter.ai/hc/en-us/articles/360047733634, exports with names and times.
"""

import re
from datetime import datetime

from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import text
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.formats.text import TextFormat, Turn
from embedding_assets.recorders.model import Recording

_DATE = re.compile(
    r"(?:\w{3,9}, )?(\w{3,9} \d{1,2}, \d{4}) (\d{1,2}:\d{2})\s?([AP]M)(?: [-–•] (\d[\d:]*\d))?",
    re.I,
)
_TURN = re.compile(r"(\S.{0,254}?)\s{2,}((?:\d{1,3}:)?\d{1,2}:\d{2})")
_HEADINGS = ("SPEAKERS", "KEYWORDS", "SUMMARY KEYWORDS")
_CREDIT = "Transcribed by https://otter.ai"


def _recognises(head: str) -> bool:
    lines = [line for _, line in text.numbered(head)[:200]]
    has_turn = any(_TURN.fullmatch(line) for line in lines)
    is_headed = any(line in _HEADINGS for line in lines[:10])
    return has_turn and (is_headed or any(_DATE.fullmatch(line) for line in lines[:4]))


def _recording(content: str, source: Source, notes: Notes) -> Recording:
    lines = text.numbered(content)
    first = next(place for place, (_, line) in enumerate(lines) if _TURN.fullmatch(line))
    header = lines[:first]
    dated = next(((n, found) for n, line in header if (found := _DATE.fullmatch(line))), None)
    titled = bool(header) and header[0][1] not in _HEADINGS and not _DATE.fullmatch(header[0][1])
    turns: list[Turn] = []
    for number, line in lines[first:]:
        match = _TURN.fullmatch(line)
        if match:
            turns.append(Turn(number, match[1], text.seconds(match[2])))
        elif line != _CREDIT:
            turns[-1].lines.append(line)
    return source.recording(
        "otter",
        title=header[0][1] if titled else source.title,
        recorded_at=_moment(*dated, notes) if dated else None,
        duration_seconds=text.seconds(dated[1][4]) if dated and dated[1][4] else None,
        segments=text.segments(turns, notes),
    )


def _moment(line: int, match: re.Match[str], notes: Notes) -> datetime | None:
    written = f"{match[1]} {match[2]}{match[3].upper()}"
    for form in ("%b %d, %Y %I:%M%p", "%B %d, %Y %I:%M%p"):
        try:
            local = datetime.strptime(f"{written} +0000", f"{form} %z")
        except ValueError:
            continue
        notes.add("date", "has no time zone: it was taken as UTC", line)
        return local
    notes.add("date", "is no date that can be read: it was left out", line)
    return None


FORMAT = TextFormat("Otter's text", _recognises, _recording)
