"""Deepgram: utterances, or the words of each channel where utterances were not asked for.

Form: https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded.
"""

from collections.abc import Iterator
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import words
from embedding_assets.recorders.formats.format import Format, has_keys
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return has_keys(document, "metadata", "results") and (
        has_keys(document["results"], "channels") or has_keys(document["results"], "utterances")
    )


def _recording(document: Any, source: Source, notes: Notes) -> Recording:
    about = checks.mapping(document["metadata"], "metadata")
    field = "metadata.request_id"
    return Recording(
        recording_id=checks.recording_id(checks.required(about, "request_id", field), field),
        title=source.title,
        segments=_segments(document["results"], notes),
        source_platform="deepgram",
        # metadata.created is when the words were recognised, not when they were said.
        duration_seconds=notes.tolerate(checks.seconds, about.get("duration"), "metadata.duration"),
    )


def _segments(results: dict[str, Any], notes: Notes) -> list[Segment]:
    if results.get("utterances"):
        return notes.segments(
            results["utterances"],
            "utterances",
            lambda position, each, field: _segment(
                position, each, each.get("transcript"), field, notes
            ),
        )
    said = [word for channel in _channels(results) for word in _words(*channel, notes)]
    # Several channels were heard at the same time.
    return words.segments(sorted(said, key=lambda word: word.start or 0.0))


def _channels(results: dict[str, Any]) -> Iterator[tuple[list[Any], str | None, str]]:
    """The words of each channel, with the channel's name if there are several."""
    channels = checks.sequence(results.get("channels") or [], "channels")
    for number, channel in enumerate(channels):
        heard = channel.get("alternatives") if isinstance(channel, dict) else None
        best = heard[0] if isinstance(heard, list) and heard and isinstance(heard[0], dict) else {}
        name = f"Channel {number}" if len(channels) > 1 else None
        yield best.get("words") or [], name, f"channels[{number}].words"


def _words(
    values: list[Any], channel: str | None, field: str, notes: Notes
) -> Iterator[words.Word]:
    found = notes.segments(
        values,
        field,
        lambda position, each, field: _segment(
            position, each, each.get("punctuated_word") or each.get("word"), field, notes
        ),
    )
    for each in found:
        yield words.Word(each.text, each.start_seconds, each.end_seconds, each.speaker or channel)


def _segment(position: int, each: dict[str, Any], said: Any, field: str, notes: Notes) -> Segment:
    speaker = each.get("speaker")
    return checks.segment(
        position,
        str(speaker)[: checks.MOST_NAME_CHARACTERS] if isinstance(speaker, int | str) else None,
        said,
        start=notes.tolerate(checks.seconds, each.get("start"), f"{field}.start"),
        end=notes.tolerate(checks.seconds, each.get("end"), f"{field}.end"),
        field=field,
    )


FORMAT = Format("Deepgram", _recognises, _recording)
