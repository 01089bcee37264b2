"""Whisper and WhisperX: segments with times, also those of whisper.cpp; WhisperX knows speakers.

Forms: https://platform.openai.com/docs/api-reference/audio (verbose_json), and the JSON files that
the programs `whisper`, `whisperx` and `whisper-cli` write.
"""

from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, has_keys, holds
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    if has_keys(document, "transcription"):
        return holds(document["transcription"], "offsets", "text")
    return (
        has_keys(document, "segments")
        and not {"recording_id", "title"} & document.keys()
        and holds(document["segments"], "start", "end", "text")
    )


def _recording(document: Any, source: Source, notes: Notes) -> Recording:
    if "transcription" in document:
        result = document.get("result")
        language = result.get("language") if isinstance(result, dict) else None
        values, field, platform = document["transcription"], "transcription", "whisper"
    else:
        language = document.get("language")
        values, field = document["segments"], "segments"
        platform = "whisperx" if "word_segments" in document else "whisper"

    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        given = each.get("offsets")
        times = checks.mapping(given, f"{field}.offsets") if given is not None else each
        names = ("from", "to") if given is not None else ("start", "end")
        clock = checks.milliseconds if given is not None else checks.seconds
        start, end = (notes.tolerate(clock, times.get(name), f"{field}.{name}") for name in names)
        return checks.segment(
            position,
            notes.tolerate(checks.optional_name, each.get("speaker"), f"{field}.speaker"),
            checks.text(each.get("text"), f"{field}.text").strip(),
            start=start,
            end=end,
            field=field,
        )

    return source.recording(
        platform,
        segments=notes.segments(values, field, segment),
        duration_seconds=notes.tolerate(checks.seconds, document.get("duration"), "duration"),
        language=notes.tolerate(checks.optional_name, language, "language"),
    )


FORMAT = Format("Whisper and WhisperX", _recognises, _recording)
