"""Fathom's API: a meeting of GET /external/v1/meetings, or of its webhook.

Form: https://developers.fathom.ai/api-reference/meetings/list-meetings.
"""

import contextlib
import re
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording

_CLOCK = re.compile(r"(\d{1,3}):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


def _recognises(document: Any) -> bool:
    if not isinstance(document, dict) or "segments" in document:
        return False
    return "recording_id" in document and bool({"transcript", "created_at"} & document.keys())


def recording(meeting: Any, _: Source, notes: Notes) -> Recording:
    """A meeting; only its id must be there. Without a transcript it waits for one.

    Raises:
        checks.RefusedError: the id is not acceptable.
    """
    meeting = checks.mapping(meeting, None)
    recording_id = checks.recording_id(checks.required(meeting, "recording_id"))
    started = notes.tolerate(
        checks.moment, meeting.get("recording_start_time"), "recording_start_time"
    )
    ended = notes.tolerate(checks.moment, meeting.get("recording_end_time"), "recording_end_time")
    created = notes.tolerate(checks.moment, meeting.get("created_at"), "created_at")
    by = notes.tolerate(checks.mapping, meeting.get("recorded_by") or {}, "recorded_by") or {}
    segments = _segments(meeting, notes)
    return Recording(
        recording_id=recording_id,
        title=notes.tolerate(
            checks.title, meeting.get("title") or meeting.get("meeting_title") or "", "title"
        )
        or "",
        segments=segments or [],
        tells_access="calendar_invitees" in meeting,
        awaits_transcript=segments is None,
        source_platform="fathom",
        recorded_at=started or created,
        duration_seconds=max(0.0, (ended - started).total_seconds()) if started and ended else None,
        url=notes.tolerate(
            checks.optional_text, meeting.get("url") or meeting.get("share_url"), "url"
        ),
        recorded_by_name=notes.tolerate(checks.optional_name, by.get("name"), "recorded_by.name"),
        recorded_by_email=notes.tolerate(checks.email, by.get("email"), "recorded_by.email"),
        recorded_by_team=notes.tolerate(checks.optional_name, by.get("team"), "recorded_by.team"),
        shared_with=notes.tolerate(checks.names_of, meeting.get("shared_with"), "shared_with")
        or (),
        invitees=notes.people(meeting.get("calendar_invitees"), "calendar_invitees"),
        language=notes.tolerate(
            checks.optional_name, meeting.get("transcript_language"), "transcript_language"
        ),
    )


def _segments(meeting: dict[str, Any], notes: Notes) -> list[Segment] | None:
    """What was said; None if the transcript is not there yet, or is no transcript."""
    transcript = meeting.get("transcript")
    if not isinstance(transcript, list) or not transcript:
        what = "is not there yet" if not transcript else "is no array"
        notes.add("transcript", f"{what}: the call waits for it")
        return None
    emails = _emails(meeting.get("calendar_invitees"))
    names = {email: name for name, email in emails.items()}

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        speaker = checks.mapping(each.get("speaker") or {}, f"{field}.speaker")
        name = notes.tolerate(
            checks.optional_name, speaker.get("display_name"), f"{field}.speaker.display_name"
        )
        email = notes.tolerate(
            checks.email,
            speaker.get("matched_calendar_invitee_email"),
            f"{field}.speaker.matched_calendar_invitee_email",
        ) or emails.get(name or "")
        return checks.segment(
            position,
            name or names.get(email or "") or email,
            checks.required(each, "text", f"{field}.text"),
            start=notes.tolerate(_clock, each.get("timestamp"), f"{field}.timestamp"),
            email=email,
            field=field,
        )

    segments = notes.segments(transcript, "transcript", segment)
    if any(each.text.strip() for each in segments):
        return segments
    notes.add("transcript", "has no words: the call waits for them")
    return None


def _emails(invitees: Any) -> dict[str, str]:
    """The invitees' addresses, by the speaker that Fathom matched with them or by their name."""
    found: dict[str, str] = {}
    for each in invitees if isinstance(invitees, list) else ():
        with contextlib.suppress(checks.RefusedError):
            given = checks.mapping(each, None)
            email = checks.email(given.get("email"), "email")
            name = given.get("matched_speaker_display_name") or given.get("name")
            name = checks.optional_name(name, "name")
            if email and name:
                found.setdefault(name, email)
    return found


def _clock(value: Any, field: str) -> float | None:
    """Seconds of "HH:MM:SS"."""
    if value is None:
        return None
    match = _CLOCK.fullmatch(checks.text(value, field).strip())
    if match is None:
        raise checks.RefusedError(field, 'is not a time such as "01:02:03" from the call\'s start')
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


FORMAT = Format("Fathom's API", _recognises, recording)
