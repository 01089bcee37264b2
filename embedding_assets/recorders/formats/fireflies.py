"""Fireflies' GraphQL API: a transcript with its sentences.

Form: https://docs.fireflies.ai/graphql-api/query/transcript.
"""

from collections.abc import Iterator
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Person, Recording


def _answer(document: Any) -> Any:
    """What a GraphQL answer holds, or the document itself."""
    return document["data"] if has_keys(document, "data") else document


def _recognises(document: Any) -> bool:
    answer = _answer(document)
    if has_keys(answer, "transcript"):
        return has_keys(answer["transcript"], "id", "sentences")
    if has_keys(answer, "transcripts"):
        return isinstance(answer["transcripts"], list)
    return has_keys(answer, "id", "sentences")


def _parts(document: Any) -> Iterator[tuple[str, Any]]:
    answer = _answer(document)
    if has_keys(answer, "transcripts"):
        for number, each in enumerate(answer["transcripts"]):
            yield f": transcripts[{number}]", each
    else:
        yield "", answer.get("transcript", answer)


def _recording(call: Any, _: Source, notes: Notes) -> Recording:
    call = checks.mapping(call, None)
    duration = notes.tolerate(checks.seconds, call.get("duration"), "duration")
    segments = _segments(call, notes)
    return Recording(
        recording_id=checks.recording_id(checks.required(call, "id"), "id"),
        title=notes.tolerate(checks.title, call.get("title") or "", "title") or "",
        segments=segments or [],
        awaits_transcript=segments is None,
        source_platform="fireflies",
        recorded_at=notes.tolerate(_date, call.get("date", call.get("dateString")), "date"),
        duration_seconds=duration * 60 if duration is not None else None,  # given in minutes
        url=notes.tolerate(checks.optional_text, call.get("transcript_url"), "transcript_url"),
        recorded_by_email=notes.tolerate(
            checks.email, call.get("host_email") or call.get("organizer_email"), "host_email"
        ),
        invitees=_invitees(call, notes),
    )


def _date(value: Any, field: str) -> Any:
    return checks.moment(value, field) if isinstance(value, str) else checks.epoch(value, field)


def _segments(call: dict[str, Any], notes: Notes) -> list[Segment] | None:
    if not call.get("sentences"):
        notes.add("sentences", "are not there yet: the call waits for them")
        return None

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        name = notes.tolerate(
            checks.optional_name, each.get("speaker_name"), f"{field}.speaker_name"
        )
        if name is None and each.get("speaker_id") is not None:
            name = f"Speaker {each['speaker_id']}"[: checks.MOST_NAME_CHARACTERS]
        start = notes.tolerate(checks.seconds, each.get("start_time"), f"{field}.start_time")
        end = notes.tolerate(checks.seconds, each.get("end_time"), f"{field}.end_time")
        said = each.get("text") or each.get("raw_text")
        return checks.segment(position, name, said, start=start, end=end, field=field)

    return notes.segments(call["sentences"], "sentences", segment)


def _invitees(call: dict[str, Any], notes: Notes) -> tuple[Person, ...]:
    """From the attendees, who have names, or else from the participants' addresses."""
    attendees = call.get("meeting_attendees") or []
    told = [
        {"email": each.get("email"), "name": each.get("displayName") or each.get("name")}
        for each in notes.tolerate(checks.sequence, attendees, "meeting_attendees") or []
        if isinstance(each, dict)
    ]
    return notes.people(told or call.get("participants"), "participants")


FORMAT = Format("Fireflies' GraphQL API", _recognises, _recording, _parts)
