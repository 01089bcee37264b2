"""AssemblyAI: a transcript with utterances, or with words where speakers were not asked for.

Form: https://www.assemblyai.com/docs/api-reference/transcripts/get.
"""

from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import words
from embedding_assets.recorders.formats.format import Format, has_keys
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return has_keys(document, "id", "status") and bool(
        {"utterances", "words", "audio_url", "audio_duration"} & document.keys()
    )


def _recording(document: Any, source: Source, notes: Notes) -> Recording:
    if document["status"] != "completed":
        raise checks.RefusedError("status", "is not `completed`: fetch the transcript again later")
    recording_id = checks.recording_id(document["id"], "id")
    return Recording(
        recording_id=recording_id,
        title=source.title,
        segments=_segments(document, notes),
        source_platform="assemblyai",
        duration_seconds=notes.tolerate(
            checks.seconds, document.get("audio_duration"), "audio_duration"
        ),
        language=notes.tolerate(
            checks.optional_name, document.get("language_code"), "language_code"
        ),
    )


def _segments(document: dict[str, Any], notes: Notes) -> list[Segment]:
    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        return checks.segment(
            position,
            notes.tolerate(checks.optional_name, each.get("speaker"), f"{field}.speaker"),
            each.get("text"),
            start=notes.tolerate(checks.milliseconds, each.get("start"), f"{field}.start"),
            end=notes.tolerate(checks.milliseconds, each.get("end"), f"{field}.end"),
            field=field,
        )

    if document.get("utterances"):
        return notes.segments(document["utterances"], "utterances", segment)
    single = notes.segments(document.get("words") or [], "words", segment)
    return words.segments(
        words.Word(each.text, each.start_seconds, each.end_seconds, each.speaker) for each in single
    )


FORMAT = Format("AssemblyAI", _recognises, _recording)
