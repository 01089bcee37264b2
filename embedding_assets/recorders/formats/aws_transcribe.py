"""Amazon Transcribe: the file of a finished job, with its words.

Form: https://docs.aws.amazon.com/transcribe/latest/dg/how-input.html#how-output.
"""

from collections.abc import Iterator
from typing import Any

from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import words
from embedding_assets.recorders.formats.format import Format, has_keys
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return has_keys(document, "results") and has_keys(document["results"], "transcripts", "items")


def _recording(document: Any, source: Source, notes: Notes) -> Recording:
    if document.get("status", "COMPLETED") != "COMPLETED":
        raise checks.RefusedError("status", "is not COMPLETED: fetch the file again later")
    results = document["results"]
    return Recording(
        recording_id=checks.recording_id(checks.required(document, "jobName"), "jobName"),
        title=source.title,
        segments=words.segments(_words(results, notes)),
        source_platform="aws_transcribe",
        language=notes.tolerate(
            checks.optional_name, results.get("language_code"), "results.language_code"
        ),
    )


def _words(results: dict[str, Any], notes: Notes) -> Iterator[words.Word]:
    speaker: str | None = None
    for number, value in enumerate(checks.sequence(results["items"], "results.items")):
        field = f"results.items[{number}]"
        item = notes.tolerate(checks.mapping, value, field) or {}
        heard = item.get("alternatives")
        best = heard[0] if isinstance(heard, list) and heard and isinstance(heard[0], dict) else {}
        if not isinstance(best.get("content"), str):
            notes.add(field, "has no content; this word was left out")
            continue
        is_mark = item.get("type") == "punctuation"
        label = item.get("speaker_label") or item.get("channel_label")
        speaker = speaker if is_mark else notes.tolerate(checks.optional_name, label, field)
        yield words.Word(
            best["content"],
            notes.tolerate(_seconds, item.get("start_time"), f"{field}.start_time"),
            notes.tolerate(_seconds, item.get("end_time"), f"{field}.end_time"),
            speaker,
            joins=is_mark,
        )


def _seconds(value: Any, field: str) -> float | None:
    return checks.seconds(checks.number(value, field), field)


FORMAT = Format("Amazon Transcribe", _recognises, _recording)
