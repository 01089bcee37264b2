"""Gong's API: POST /v2/calls/transcript, with the names of POST /v2/calls/extensive beside it.

Form: https://help.gong.io/docs/what-the-gong-api-provides. The two answers in one object,
`{"callTranscripts": […], "calls": […]}`, make the names known.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys, object_or_empty
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Person, Recording


def _recognises(document: Any) -> bool:
    return has_keys(document, "callTranscripts")


def _parts(document: Any) -> Iterator[tuple[str, Any]]:
    """Each transcript with what `calls` says of its call."""
    calls = document.get("calls")
    described = {
        str(object_or_empty(call.get("metaData")).get("id")): call
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict)
    }
    for number, each in enumerate(checks.sequence(document["callTranscripts"], "callTranscripts")):
        call = described.get(str(object_or_empty(each).get("callId")), {})
        yield f": callTranscripts[{number}]", (each, call)


def _recording(part: Any, _: Source, notes: Notes) -> Recording:
    transcript, call = part
    transcript = checks.mapping(transcript, None)
    about = object_or_empty(call.get("metaData"))
    given = notes.tolerate(checks.sequence, call.get("parties") or [], "parties") or []
    parties = [each for each in given if isinstance(each, dict)]
    if not parties:
        notes.add("parties", "are not in the file: the speakers have numbers instead of names")
    owner = next(
        (p for p in parties if p.get("userId") and p["userId"] == about.get("primaryUserId")), {}
    )
    return Recording(
        recording_id=checks.recording_id(checks.required(transcript, "callId"), "callId"),
        title=notes.tolerate(checks.title, about.get("title") or "", "title") or "",
        segments=_segments(transcript, parties, notes),
        source_platform="gong",
        recorded_at=notes.tolerate(checks.moment, about.get("started"), "started"),
        duration_seconds=notes.tolerate(checks.seconds, about.get("duration"), "duration"),
        url=notes.tolerate(checks.optional_text, about.get("url"), "url"),
        recorded_by_name=notes.tolerate(checks.optional_name, owner.get("name"), "parties.name"),
        recorded_by_email=notes.tolerate(
            checks.email, owner.get("emailAddress"), "parties.emailAddress"
        ),
        invitees=tuple(_invitees(parties, notes)),
        language=notes.tolerate(checks.optional_name, about.get("language"), "language"),
    )


def _segments(
    transcript: dict[str, Any], parties: list[dict[str, Any]], notes: Notes
) -> list[Segment]:
    """A segment a sentence; times are in milliseconds."""
    known = {str(party.get("speakerId")): party for party in parties}
    found: list[Segment] = []
    for number, turn in enumerate(checks.sequence(transcript.get("transcript"), "transcript")):
        field = f"transcript[{number}]"
        given = notes.tolerate(checks.mapping, turn, field) or {}
        speaker = given.get("speakerId")
        party = known.get(str(speaker), {})
        name = notes.tolerate(checks.optional_name, party.get("name"), "parties.name")
        if name is None and speaker is not None:
            name = f"Speaker {speaker}"[: checks.MOST_NAME_CHARACTERS]
        email = notes.tolerate(checks.email, party.get("emailAddress"), "parties.emailAddress")
        said = notes.segments(
            given.get("sentences") or [], f"{field}.sentences", partial(_sentence, notes)
        )
        found += [
            each._replace(position=len(found) + place, speaker=name, speaker_email=email)
            for place, each in enumerate(said)
        ]
    return found


def _sentence(notes: Notes, position: int, each: dict[str, Any], field: str) -> Segment:
    return checks.segment(
        position,
        None,
        each.get("text"),
        start=notes.tolerate(checks.milliseconds, each.get("start"), f"{field}.start"),
        end=notes.tolerate(checks.milliseconds, each.get("end"), f"{field}.end"),
        field=field,
    )


def _invitees(parties: list[dict[str, Any]], notes: Notes) -> Iterator[Person]:
    sides = {"Internal": False, "External": True}
    for party in parties:
        email = notes.tolerate(checks.email, party.get("emailAddress"), "parties.emailAddress")
        name = notes.tolerate(checks.optional_name, party.get("name"), "parties.name")
        if email or name:
            yield Person(email, name, sides.get(str(party.get("affiliation"))))


FORMAT = Format("Gong's API", _recognises, _recording, _parts)
