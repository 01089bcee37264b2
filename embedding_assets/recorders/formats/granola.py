"""Granola's API: GET /v1/notes/{id}?include=transcript.

Form: https://docs.granola.ai. It tells which side spoke (the microphone or the speakers), on some
devices a label; names only where Granola knows them.
"""

from datetime import datetime
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys, holds, object_or_empty
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return (
        has_keys(document, "id", "transcript")
        and "recording_id" not in document
        and holds(document["transcript"], "speaker", "text")
        and has_keys(document["transcript"][0]["speaker"], "source")
    )


def _recording(note: Any, _: Source, notes: Notes) -> Recording:
    owner = object_or_empty(note.get("owner"))
    mine = notes.tolerate(checks.optional_name, owner.get("name"), "owner.name")
    began = _first_moment(note, notes)

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        speaker = object_or_empty(each.get("speaker"))
        label = speaker.get("name") or speaker.get("diarization_label")
        name = notes.tolerate(checks.optional_name, label, f"{field}.speaker")
        if name is None and speaker.get("source") == "microphone":
            name = mine
        start, end = (
            _since(began, notes.tolerate(checks.moment, each.get(key), f"{field}.{key}"))
            for key in ("start_time", "end_time")
        )
        return checks.segment(position, name, each.get("text"), start=start, end=end, field=field)

    return Recording(
        recording_id=checks.recording_id(note["id"], "id"),
        title=notes.tolerate(checks.title, note.get("title") or "", "title") or "",
        segments=notes.segments(note["transcript"], "transcript", segment),
        source_platform="granola",
        recorded_at=began or notes.tolerate(checks.moment, note.get("created_at"), "created_at"),
        url=notes.tolerate(checks.optional_text, note.get("web_url"), "web_url"),
        recorded_by_name=mine,
        recorded_by_email=notes.tolerate(checks.email, owner.get("email"), "owner.email"),
        invitees=notes.people(note.get("attendees"), "attendees"),
    )


def _first_moment(note: dict[str, Any], notes: Notes) -> datetime | None:
    first = note["transcript"][0].get("start_time")
    return notes.tolerate(checks.moment, first, "transcript[0].start_time")


def _since(began: datetime | None, moment: datetime | None) -> float | None:
    return max(0.0, (moment - began).total_seconds()) if began and moment else None


FORMAT = Format("Granola's API", _recognises, _recording)
