"""Read AI's webhook `meeting_end`: a session with the blocks of its transcript.

Form: https://support.read.ai/hc/en-us/articles/16352415827219.
"""

from datetime import datetime
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys, object_or_empty
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return has_keys(document, "session_id", "transcript") and has_keys(
        document["transcript"], "speaker_blocks"
    )


def _recording(session: Any, _: Source, notes: Notes) -> Recording:
    blocks = session["transcript"]["speaker_blocks"]
    began = notes.tolerate(checks.moment, session.get("start_time"), "start_time")
    ended = notes.tolerate(checks.moment, session.get("end_time"), "end_time")
    owner = object_or_empty(session.get("owner"))

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        speaker = object_or_empty(each.get("speaker"))
        start, end = (
            _since(began, notes.tolerate(_moment, each.get(key), f"{field}.{key}"))
            for key in ("start_time", "end_time")
        )
        return checks.segment(
            position,
            notes.tolerate(checks.optional_name, speaker.get("name"), f"{field}.speaker.name"),
            each.get("words"),
            start=start,
            end=end,
            field=field,
        )

    return Recording(
        recording_id=checks.recording_id(session["session_id"], "session_id"),
        title=notes.tolerate(checks.title, session.get("title") or "", "title") or "",
        segments=notes.segments(blocks, "transcript.speaker_blocks", segment),
        source_platform="read_ai",
        recorded_at=began,
        duration_seconds=max(0.0, (ended - began).total_seconds()) if began and ended else None,
        url=notes.tolerate(checks.optional_text, session.get("report_url"), "report_url"),
        recorded_by_name=notes.tolerate(checks.optional_name, owner.get("name"), "owner.name"),
        recorded_by_email=notes.tolerate(checks.email, owner.get("email"), "owner.email"),
        invitees=notes.people(session.get("participants"), "participants"),
    )


def _moment(value: Any, field: str) -> datetime | None:
    """A date-time in ISO 8601, or in milliseconds since 1970 as a number or as text."""
    is_iso = isinstance(value, str) and not value.strip().isdecimal()
    return checks.moment(value, field) if is_iso else checks.epoch(value, field)


def _since(began: datetime | None, moment: datetime | None) -> float | None:
    """Blocks are timed by the clock; seconds from the meeting's start, if that makes sense."""
    if began is None or moment is None:
        return None
    seconds = (moment - began).total_seconds()
    return seconds if 0 <= seconds <= checks.LONGEST_CALL else None


FORMAT = Format("Read AI's webhook", _recognises, _recording)
