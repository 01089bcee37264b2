"""This project's own format: one recording an object, with its segments."""

from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return isinstance(document, dict) and (
        "recording_id" in document or {"title", "segments"} <= document.keys()
    )


def recording(record: Any, _: Source, __: Notes) -> Recording:
    """`recording_id`, `title`, `segments` of `speaker`, `start`, `text`; the rest may be absent.

    Raises:
        checks.RefusedError: a field is not acceptable.
    """
    record = checks.mapping(record, None)
    by = checks.mapping(record.get("recorded_by") or {}, "recorded_by")
    recording_id = checks.recording_id(checks.required(record, "recording_id"))
    title = checks.title(checks.required(record, "title"))
    given = checks.sequence(checks.required(record, "segments"), "segments")
    return Recording(
        recording_id=recording_id,
        title=title,
        segments=[_segment(position, each) for position, each in enumerate(given)],
        source_platform=checks.optional_text(record.get("source_platform"), "source_platform")
        or "import",
        recorded_at=checks.moment(record.get("recorded_at"), "recorded_at"),
        duration_seconds=checks.seconds(record.get("duration"), "duration"),
        url=checks.optional_text(record.get("url"), "url"),
        recorded_by_name=checks.optional_name(by.get("name"), "recorded_by.name"),
        recorded_by_email=checks.email(by.get("email"), "recorded_by.email"),
        recorded_by_team=checks.optional_name(by.get("team"), "recorded_by.team"),
        shared_with=checks.names_of(record.get("shared_with"), "shared_with"),
        tells_access="invitees" in record,
        invitees=checks.people(record.get("invitees"), "invitees"),
        language=checks.optional_name(record.get("language"), "language"),
    )


def _segment(position: int, value: Any) -> Segment:
    field = f"segments[{position}]"
    each = checks.mapping(value, field)
    return checks.segment(
        position,
        checks.optional_name(each.get("speaker"), f"{field}.speaker"),
        checks.required(each, "text", f"{field}.text"),
        start=checks.seconds(each.get("start"), f"{field}.start"),
        end=checks.seconds(each.get("end"), f"{field}.end"),
        email=checks.email(each.get("email"), f"{field}.email"),
        field=field,
    )


FORMAT = Format("JSON lines (recording_id, title, segments)", _recognises, recording)
