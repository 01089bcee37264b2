"""What is acceptable in a recording, whatever format it comes in; refusals name the field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from embedding_assets.engine.model import Recording, Segment

MOST_SEGMENT_BYTES = 1_000_000
MOST_ID_CHARACTERS = 255
MOST_TITLE_CHARACTERS = 2_000
MOST_NAME_CHARACTERS = 255
MOST_SECONDS = 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that was not imported, where it is, and what to do about it."""

    place: str  # file and line, or file and item
    field: str | None
    reason: str
    recording_id: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.field}: {self.reason}"
            if self.field
            else f"{self.place}: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class Notice(Rejection):
    """Something unusual in a recording that was imported nevertheless."""


class RefusedError(Exception):
    """A field is not acceptable; the reader adds the place, and a format of lines the line."""

    def __init__(self, field: str | None, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
        self.line = line


def mapping(value: Any, field: str | None) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise RefusedError(field, f"is {_kind(value)}, not an object")
    return value


def sequence(value: Any, field: str | None) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise RefusedError(field, f"is {_kind(value)}, not an array")
    return value


def required(record: dict[str, Any], name: str, field: str | None = None) -> Any:
    """A field that must be there."""
    if name not in record:
        raise RefusedError(field or name, "is missing")
    return record[name]


def text(value: Any, field: str, *, most_bytes: int = MOST_SEGMENT_BYTES) -> str:
    """A text that Postgres can store and a model can read."""
    if not isinstance(value, str):
        raise RefusedError(field, f"is {_kind(value)}, not text")
    if "\0" in value:
        raise RefusedError(field, "has a NUL byte, which Postgres cannot store: remove it")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise RefusedError(
            field, "has half of a surrogate pair, which is no character: remove it"
        ) from None
    if size > most_bytes:
        raise RefusedError(field, f"has {size:,} bytes; at most {most_bytes:,} are taken")
    return value


def optional_text(value: Any, field: str) -> str | None:
    """A text, or nothing."""
    return text(value, field, most_bytes=MOST_SEGMENT_BYTES) or None if value is not None else None


def optional_name(value: Any, field: str) -> str | None:
    """A person's name or address on one line, or nothing; white space alone is nothing."""
    name = " ".join((optional_text(value, field) or "").split())
    if len(name) > MOST_NAME_CHARACTERS:
        raise RefusedError(field, f"is longer than {MOST_NAME_CHARACTERS} characters")
    return name or None


def recording_id(value: Any, field: str = "recording_id") -> str:
    """An id that can be a Dagster partition key: an integer, or a printable text."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    identity = text(str(value) if is_number else value, field)
    if not identity:
        raise RefusedError(field, "is empty")
    if len(identity) > MOST_ID_CHARACTERS:
        raise RefusedError(field, f"is longer than {MOST_ID_CHARACTERS} characters")
    if (
        identity != identity.strip()
        or not identity.isprintable()
        or "..." in identity
        or "," in identity
    ):
        raise RefusedError(
            field,
            "cannot be a partition key: no white space at its ends, no control characters, no comma"
            " and no '...'",
        )
    return identity


def title(value: Any, field: str = "title") -> str:
    """A call's title."""
    return text(value, field)[:MOST_TITLE_CHARACTERS]


def seconds(value: Any, field: str) -> float | None:
    """A time from the recording's start, or nothing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(field, f"is {_kind(value)}, not a number of seconds")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number > MOST_SECONDS:
        raise RefusedError(field, "is no possible time")
    if number < 0:
        raise RefusedError(field, "is negative; times are seconds from the recording's start")
    return number


def moment(value: Any, field: str) -> datetime | None:
    """A date-time or date in ISO 8601, or nothing; without a zone it is UTC."""
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(text(value, field))
    except ValueError:
        raise RefusedError(field, "is not a date or date-time in ISO 8601") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def segment(
    position: int,
    speaker: str | None,
    said: Any,
    *,
    start: float | None,
    end: float | None = None,
    email: str | None = None,
    field: str,
) -> Segment:
    """One segment whose times go forward; `field` names it."""
    if start is not None and end is not None and end < start:
        raise RefusedError(f"{field}.end", "is before the start")
    return Segment(position, speaker, text(said, f"{field}.text"), start, end, email)


def finished(recording: Recording, place: str) -> list[Recording | Notice]:
    """The recording, after notices of what is unusual in it.

    Raises:
        RefusedError: nothing was said.
    """
    if not any(each.text.strip() for each in recording.segments):
        raise RefusedError("segments", "there are none with text: nothing was said, or not yet")
    notices: list[Recording | Notice] = [
        Notice(place, field, reason, recording.recording_id)
        for field, reason in (*_backward(recording.segments), *_unknown(recording.segments))
    ]
    if recording.duration_seconds is None:
        ends = [s.end_seconds for s in recording.segments if s.end_seconds is not None]
        recording = replace(recording, duration_seconds=max(ends, default=None))
    return [*notices, recording]


def _backward(segments: Sequence[Segment]) -> list[tuple[str, str]]:
    back: list[int] = []
    last = 0.0
    for each in segments:
        if each.start_seconds is not None:
            if each.start_seconds < last:
                back.append(each.position)
            last = each.start_seconds
    if not back:
        return []
    return [(f"segments[{back[0]}].start", _times(len(back), "is before the segment before it"))]


def _unknown(segments: Sequence[Segment]) -> list[tuple[str, str]]:
    unknown = [each.position for each in segments if each.speaker is None]
    if not unknown or len(unknown) == len(segments):  # a transcript without speakers is nothing odd
        return []
    return [(f"segments[{unknown[0]}].speaker", _times(len(unknown), "is unknown"))]


def _times(number: int, what: str) -> str:
    return what if number == 1 else f"{what}; so are {number - 1} more"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
