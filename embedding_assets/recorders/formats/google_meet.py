"""Google Meet's transcript, a document in Google Docs, downloaded as plain text.

Form: https://support.google.com/meet/answer/12849897, and documents as Meet writes them.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import names, text
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.formats.text import TextFormat, Turn
from embedding_assets.recorders.model import Person, Recording

_TITLE = re.compile(
    r"(?P<title>.{0,500}?)[\s-]*\(?"
    r"(?P<date>\d{4}[/-]\d{2}[/-]\d{2})(?: at)? (?P<time>\d{1,2}:\d{2})"
    r"(?: (?P<zone>[A-Z]{1,5}(?:[+-]\d{1,2}(?::?\d{2})?)?))?\)?\s*[-–]\s*Transcript"
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}:\d{2}")
_ENDED = re.compile(r"(?:Transcription|Meeting) ended (?:after|at) (\d{1,2}:\d{2}:\d{2}).*")
_EDITABLE = "This editable transcript was computer generated"
_OFFSET = re.compile(r"(?:GMT|UTC)([+-])(\d{1,2}):?(\d{2})?")
# Hours from UTC of the zones that have one meaning in Meet's documents.
_ZONES = {
    "GMT": 0, "UTC": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6,
    "PST": -8, "PDT": -7, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "JST": 9,
}  # fmt: skip


def _recognises(head: str) -> bool:
    lines = [line for _, line in text.numbered(head)[:200]]
    return bool(lines) and (_TITLE.fullmatch(lines[0]) is not None or _has_headings(lines))


def _has_headings(lines: list[str]) -> bool:
    """Whether it has Meet's two headings, and a time alone on a line below them."""
    if "Attendees" not in lines[:10] or "Transcript" not in lines:
        return False
    return any(_CLOCK.fullmatch(line) for line in lines[lines.index("Transcript") :])


def _recording(content: str, source: Source, notes: Notes) -> Recording:
    lines = text.numbered(content)
    about = _TITLE.fullmatch(lines[0][1])
    attendees = _attendees([line for _, line in lines])
    clocks = [place for place, (_, line) in enumerate(lines) if _CLOCK.fullmatch(line)]
    said = lines[clocks[0] :] if clocks else lines[1:]
    known = set(attendees) | names.speakers(line for _, line in said)
    known_title = about["title"].strip(" -(") if about else ""
    return source.recording(
        "google_meet",
        title=known_title or ("" if about else source.title),
        recorded_at=_moment(about, notes) if about else None,
        segments=text.segments(_turns(said, known), notes),
        duration_seconds=next((_ended(line) for _, line in said if _ENDED.fullmatch(line)), None),
        invitees=tuple(Person(None, name) for name in attendees),
    )


def _attendees(lines: list[str]) -> list[str]:
    """The names below the heading, separated by commas, on one line or several."""
    if "Attendees" not in lines[:10]:
        return []
    after = lines[lines.index("Attendees") + 1 :]
    listed = after[: after.index("Transcript")] if "Transcript" in after else after[:1]
    return [name for line in listed for each in line.split(",") if (name := " ".join(each.split()))]


def _turns(lines: list[tuple[int, str]], known: set[str]) -> list[Turn]:
    turns: list[Turn] = []
    start: float | None = None
    is_new = True
    for number, line in lines:
        if _CLOCK.fullmatch(line):
            start, is_new = text.seconds(line), True
            continue
        if _ENDED.fullmatch(line) or line.startswith(_EDITABLE):
            continue
        split = names.prefix(line)
        if split and split[0] in known:
            turns.append(Turn(number, split[0], start, [split[1]]))
        elif is_new or not turns:
            turns.append(Turn(number, None, start, [line]))
        else:
            turns[-1].lines.append(line)
        is_new = False
    return turns


def _ended(line: str) -> float | None:
    match = _ENDED.fullmatch(line)
    return text.seconds(match[1]) if match else None


def _moment(about: re.Match[str], notes: Notes) -> datetime | None:
    try:
        local = datetime.fromisoformat(
            f"{about['date'].replace('/', '-')}T{about['time'].zfill(5)}"
        )
    except ValueError:
        notes.add("date", "is no date: it was left out", 1)
        return None
    zone = about["zone"]
    offset = _OFFSET.fullmatch(zone or "")
    if offset:
        delta = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        return local.replace(tzinfo=timezone(-delta if offset[1] == "-" else delta))
    if zone not in _ZONES:
        notes.add("date", "has no time zone that is known: it was taken as UTC", 1)
        return local.replace(tzinfo=UTC)
    return local.replace(tzinfo=timezone(timedelta(hours=_ZONES[zone])))


FORMAT = TextFormat("Google Meet's transcript as text", _recognises, _recording)
