"""This project's own format: one recording an object, with its segments."""

from typing import Any

from embedding_assets.engine.model import Recording, Segment
from embedding_assets.recorders import checks


def recording(record: dict[str, Any]) -> Recording:
    """`recording_id`, `title`, `segments` of `speaker`, `start`, `text`; the rest may be absent.

    Raises:
        checks.RefusedError: a field is not acceptable.
    """
    by = checks.mapping(record.get("recorded_by") or {}, "recorded_by")
    return Recording(
        recording_id=checks.recording_id(checks.required(record, "recording_id")),
        title=checks.title(checks.required(record, "title")),
        segments=[
            _segment(position, each)
            for position, each in enumerate(
                checks.sequence(checks.required(record, "segments"), "segments")
            )
        ],
        source_platform=checks.optional_text(record.get("source_platform"), "source_platform")
        or "import",
        recorded_at=checks.moment(record.get("recorded_at"), "recorded_at"),
        duration_seconds=checks.seconds(record.get("duration"), "duration"),
        url=checks.optional_text(record.get("url"), "url"),
        recorded_by_name=checks.optional_name(by.get("name"), "recorded_by.name"),
        recorded_by_email=checks.optional_name(by.get("email"), "recorded_by.email"),
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
        email=checks.optional_name(each.get("email"), f"{field}.email"),
        field=field,
    )
