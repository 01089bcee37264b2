"""Fathom's API: a meeting of GET /external/v1/meetings?include_transcript=true."""

import re
from typing import Any

from embedding_assets.engine.model import Recording, Segment
from embedding_assets.recorders import checks

_CLOCK = re.compile(r"(\d{1,3}):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


def recording(meeting: dict[str, Any]) -> Recording:
    """A meeting; e-mail addresses, summary and invitees may be absent or null.

    Raises:
        checks.RefusedError: a field is not acceptable, or there is no transcript.
    """
    recorded_at = checks.moment(
        meeting.get("recording_start_time") or meeting.get("created_at"), "created_at"
    )
    ended_at = checks.moment(meeting.get("recording_end_time"), "recording_end_time")
    by = checks.mapping(meeting.get("recorded_by") or {}, "recorded_by")
    transcript = meeting.get("transcript")
    if transcript is None:
        raise checks.RefusedError(
            "transcript", "is missing or null: ask Fathom with include_transcript=true"
        )
    names = _invitees(meeting.get("calendar_invitees"))
    duration = None
    if meeting.get("recording_start_time") and recorded_at and ended_at:
        duration = max(0.0, (ended_at - recorded_at).total_seconds())
    return Recording(
        recording_id=checks.recording_id(checks.required(meeting, "recording_id")),
        title=checks.title(meeting.get("title") or meeting.get("meeting_title"), "title"),
        segments=[
            _segment(position, each, names)
            for position, each in enumerate(checks.sequence(transcript, "transcript"))
        ],
        source_platform="fathom",
        recorded_at=recorded_at,
        duration_seconds=duration,
        url=checks.optional_text(meeting.get("url") or meeting.get("share_url"), "url"),
        recorded_by_name=checks.optional_name(by.get("name"), "recorded_by.name"),
        recorded_by_email=checks.optional_name(by.get("email"), "recorded_by.email"),
    )


def _invitees(given: Any) -> dict[str, str]:
    """Names by e-mail address."""
    names: dict[str, str] = {}
    for position, value in enumerate(checks.sequence(given or [], "calendar_invitees")):
        field = f"calendar_invitees[{position}]"
        each = checks.mapping(value, field)
        email = checks.optional_name(each.get("email"), f"{field}.email")
        name = checks.optional_name(each.get("name"), f"{field}.name")
        if email and name:
            names[email] = name
    return names


def _segment(position: int, value: Any, names: dict[str, str]) -> Segment:
    field = f"transcript[{position}]"
    each = checks.mapping(value, field)
    speaker = checks.mapping(each.get("speaker") or {}, f"{field}.speaker")
    email = checks.optional_name(
        speaker.get("matched_calendar_invitee_email"),
        f"{field}.speaker.matched_calendar_invitee_email",
    )
    name = checks.optional_name(speaker.get("display_name"), f"{field}.speaker.display_name")
    return checks.segment(
        position,
        name or names.get(email or "") or email,
        checks.required(each, "text", f"{field}.text"),
        start=_clock(each.get("timestamp"), f"{field}.timestamp"),
        email=email,
        field=field,
    )


def _clock(value: Any, field: str) -> float | None:
    """Seconds of "HH:MM:SS"."""
    if value is None:
        return None
    match = _CLOCK.fullmatch(checks.text(value, field).strip())
    if match is None:
        raise checks.RefusedError(field, 'is not a time such as "01:02:03" from the call\'s start')
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
