"""What is acceptable in a recording, whatever format it comes in; refusals name the field."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from embedding_assets.engine.model import Segment
from embedding_assets.recorders.model import Person, Recording

T = TypeVar("T")

MOST_SEGMENT_BYTES = 1_000_000
MOST_ID_CHARACTERS = 255
MOST_TITLE_CHARACTERS = 2_000
MOST_NAME_CHARACTERS = 255
MOST_SECONDS = 366 * 24 * 3600.0
LONGEST_CALL = 24 * 3600.0  # seconds; longer ones are told, as their times may be milliseconds


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
    """A field is not acceptable; the reader adds the place."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class Notes:
    """What is unusual in one recording, gathered while it is read, with the lines it is in."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._lines: dict[int, int] = {}
        self._found: list[tuple[str, str | None, str]] = []

    def at(self, position: int, line: int) -> None:
        """Remembers the line that a segment came from."""
        self._lines[position] = line

    def add(self, field: str | None, reason: str, line: int | None = None) -> None:
        """Adds a remark about a field, in a line."""
        self._found.append((f"{self.place}:{line}" if line else self.place, field, reason))

    def tolerate(self, read: Callable[[Any, str], T], value: Any, field: str) -> T | None:
        """What `read` makes of a field that is not needed; a bad one is told and left out."""
        try:
            return read(value, field)
        except RefusedError as error:
            self.add(error.field, f"{error.reason}; it was left out")
            return None

    def people(self, values: Any, field: str) -> tuple[Person, ...]:
        """Those of the people that can be read; a bad one is told and left out."""
        given = self.tolerate(sequence, values or [], field) or []
        read = [self.tolerate(person, each, f"{field}[{n}]") for n, each in enumerate(given)]
        return tuple(each for each in read if each)

    def segments(
        self, values: Any, field: str, read: Callable[[int, dict[str, Any], str], Segment]
    ) -> list[Segment]:
        """What `read` makes of each object by its position and field; a bad one is left out."""
        found: list[Segment] = []
        for number, value in enumerate(sequence(values, field)):
            place = f"{field}[{number}]"
            try:
                found.append(read(len(found), mapping(value, place), place))
            except RefusedError as error:
                self.add(error.field, f"{error.reason}; this segment was left out")
        return found

    def about(self, position: int, field: str, reason: str) -> None:
        """Adds a remark about a segment's field."""
        self.add(f"segments[{position}].{field}", reason, self._lines.get(position))

    def notices(self, recording_id: str | None) -> list[Notice]:
        """All remarks, in their order."""
        return [Notice(*each, recording_id) for each in self._found]


def mapping(value: Any, field: str | None) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise RefusedError(field, f"is {kind(value)}, not an object")
    return value


def sequence(value: Any, field: str | None) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise RefusedError(field, f"is {kind(value)}, not an array")
    return value


def required(record: dict[str, Any], name: str, field: str | None = None) -> Any:
    """A field that must be there."""
    if name not in record:
        raise RefusedError(field or name, "is missing")
    return record[name]


def text(value: Any, field: str, *, most_bytes: int = MOST_SEGMENT_BYTES) -> str:
    """A text that Postgres can store and a model can read."""
    if not isinstance(value, str):
        raise RefusedError(field, f"is {kind(value)}, not text")
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


def made_title(recorded_at: datetime | None, speakers: Sequence[str | None]) -> str:
    """A title for a call that has none: of its date, or of who speaks."""
    if recorded_at is not None:
        return f"Call on {recorded_at.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
    names = list(dict.fromkeys(name for name in speakers if name))
    return f"Call of {', '.join(names[:3])}"[:MOST_TITLE_CHARACTERS] if names else "Untitled call"


def names_of(value: Any, field: str) -> tuple[str, ...]:
    """A name, several in an array (or objects with a name), or none."""
    given = value if isinstance(value, list) else [value]
    told = [each.get("name") if isinstance(each, dict) else each for each in given]
    return tuple(name for each in told if (name := optional_name(each, field)))


def people(value: Any, field: str) -> tuple[Person, ...]:
    """Who was invited: an array of e-mail addresses, or of objects with e-mail and name."""
    read = [person(each, f"{field}[{n}]") for n, each in enumerate(sequence(value or [], field))]
    return tuple(each for each in read if each)


def person(value: Any, field: str) -> Person | None:
    """An e-mail address, or an object with e-mail and name; nothing if both are missing."""
    given = {"email": value} if isinstance(value, str) else mapping(value, field)
    is_external = given.get("is_external")
    made = Person(
        email(given.get("email"), f"{field}.email"),
        optional_name(given.get("name"), f"{field}.name"),
        is_external if isinstance(is_external, bool) else None,
    )
    return made if made.email or made.name else None


def email(value: Any, field: str) -> str | None:
    """An address as it is compared: in small letters; or nothing."""
    address = optional_name(value, field)
    return address.lower() if address else None


def seconds(value: Any, field: str) -> float | None:
    """A time from the recording's start, or nothing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(field, f"is {kind(value)}, not a number of seconds")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number > MOST_SECONDS:
        raise RefusedError(field, "is no possible time")
    if number < 0:
        raise RefusedError(field, "is negative; times are seconds from the recording's start")
    return number


def number(value: Any, field: str) -> Any:
    """A number that may be written as text, or nothing."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise RefusedError(field, "is no number") from None


def milliseconds(value: Any, field: str) -> float | None:
    """A time in milliseconds from the recording's start, in seconds; or nothing."""
    given = number(value, field)
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return seconds(given / 1000 if is_number and abs(given) < 1e15 else given, field)


def epoch(value: Any, field: str) -> datetime | None:
    """A date-time in milliseconds since 1970, or nothing."""
    given = number(value, field)
    if given is None:
        return None
    try:
        return datetime.fromtimestamp(given / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise RefusedError(field, "is no time in milliseconds since 1970") from None


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


def finished(recording: Recording, notes: Notes) -> Recording:
    """The recording with its duration and title, after remarks on what is unusual in it.

    Raises:
        RefusedError: nothing was said.
    """
    if not recording.awaits_transcript and not any(s.text.strip() for s in recording.segments):
        raise RefusedError("segments", "there are none with text: nothing was said, or not yet")
    for position, field, reason in (
        *_backward(recording.segments),
        *_unknown(recording.segments),
        *_long(recording.segments),
    ):
        notes.about(position, field, reason)
    if recording.duration_seconds is None:
        ends = [s.end_seconds for s in recording.segments if s.end_seconds is not None]
        recording = replace(recording, duration_seconds=max(ends, default=None))
    if not recording.title.strip():
        made = made_title(recording.recorded_at, [s.speaker for s in recording.segments])
        notes.add("title", "is missing: one was made of the date or the speakers")
        recording = replace(recording, title=made)
    return recording


def _backward(segments: Sequence[Segment]) -> Iterator[tuple[int, str, str]]:
    back: list[int] = []
    last = 0.0
    for each in segments:
        if each.start_seconds is not None:
            if each.start_seconds < last:
                back.append(each.position)
            last = each.start_seconds
    if back:
        yield back[0], "start", _times(len(back), "is before the segment before it")


def _unknown(segments: Sequence[Segment]) -> Iterator[tuple[int, str, str]]:
    said = [each for each in segments if each.text.strip()]
    unknown = [each.position for each in said if each.speaker is None]
    if unknown and len(unknown) < len(said):  # a transcript without speakers is nothing odd
        yield unknown[0], "speaker", _times(len(unknown), "is unknown")


def _long(segments: Sequence[Segment]) -> Iterator[tuple[int, str, str]]:
    late = [s for s in segments if (s.start_seconds or 0) > LONGEST_CALL]
    if late:
        hours = (late[0].start_seconds or 0) / 3600
        reason = f"is {hours:,.0f} hours from the start: times are seconds; are these milliseconds?"
        yield late[0].position, "start", reason


def _times(number: int, what: str) -> str:
    verb = "is" if number == 2 else "are"
    return what if number == 1 else f"{what}; so {verb} {number - 1} more"


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
