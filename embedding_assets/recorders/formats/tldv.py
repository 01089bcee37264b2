"""tl;dv's API: GET /v1alpha1/meetings/{id}/transcript, or its webhook TranscriptReady.

Form: https://doc.tldv.io. It tells neither title nor date; the answer of GET
/v1alpha1/meetings/{id} under the key `meeting` beside it makes them known.
"""

from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys, holds, object_or_empty
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _answer(document: Any) -> Any:
    """What the webhook carries, or the document itself."""
    is_event = has_keys(document, "event", "data")
    return document["data"] if is_event else document


def _values(answer: Any) -> Any:
    """The segments, which come plain or below a key of their own."""
    data = answer["data"]
    return data.get("segments") if isinstance(data, dict) else data


def _recognises(document: Any) -> bool:
    answer = _answer(document)
    return has_keys(answer, "meetingId", "data") and holds(
        _values(answer), "text", "startTime", "endTime"
    )


def _recording(document: Any, _: Source, notes: Notes) -> Recording:
    answer = _answer(document)
    meeting = object_or_empty(document.get("meeting"))
    by = object_or_empty(meeting.get("organizer"))

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        return checks.segment(
            position,
            notes.tolerate(checks.optional_name, each.get("speaker"), f"{field}.speaker"),
            each.get("text"),
            start=notes.tolerate(checks.seconds, each.get("startTime"), f"{field}.startTime"),
            end=notes.tolerate(checks.seconds, each.get("endTime"), f"{field}.endTime"),
            field=field,
        )

    return Recording(
        recording_id=checks.recording_id(answer["meetingId"], "meetingId"),
        title=notes.tolerate(checks.title, meeting.get("name") or "", "meeting.name") or "",
        segments=notes.segments(_values(answer), "data", segment),
        source_platform="tldv",
        recorded_at=notes.tolerate(checks.moment, meeting.get("happenedAt"), "meeting.happenedAt"),
        url=notes.tolerate(checks.optional_text, meeting.get("url"), "meeting.url"),
        recorded_by_name=notes.tolerate(checks.optional_name, by.get("name"), "organizer.name"),
        recorded_by_email=notes.tolerate(checks.email, by.get("email"), "organizer.email"),
        invitees=notes.people(meeting.get("invitees"), "meeting.invitees"),
    )


FORMAT = Format("tl;dv's API", _recognises, _recording)
