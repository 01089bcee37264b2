"""Captions: WebVTT, as Zoom and Teams write it, and SRT."""

import html
import io
import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Literal

import webvtt

from embedding_assets.engine.model import Recording, Segment
from embedding_assets.importers import checks

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>|<\d[\d:.]*>")
_NAMED = re.compile(r"([^\W\d_][^:\n]{0,58}?):\s+(?=\S)")
_ZOOM_STAMP = re.compile(r"GMT(\d{8}-\d{6})")
_ENDINGS = (".gz", ".vtt", ".srt", ".transcript", ".captions", ".cc")


def recording(text: str, name: str, kind: Literal["vtt", "srt"]) -> Recording:
    """A file of captions; id, title and (Zoom's stamp) date come from its name.

    Raises:
        checks.RefusedError: a cue cannot be read, or there is none.
    """
    checks.text(text, "file", most_bytes=256 * checks.MOST_SEGMENT_BYTES)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "-->" in line]
    cues = _cues(text, kind)
    if len(cues) != len(lines):
        raise checks.RefusedError(
            None, f"{len(lines)} cues have times, but {len(cues)} can be read: mend the others"
        )
    segments: list[Segment] = []
    for cue, line in zip(cues, lines, strict=True):
        for speaker, said in _turns(cue.raw_text):
            segments.append(
                checks.segment(
                    len(segments),
                    speaker,
                    said,
                    start=_clock(cue.start),
                    end=_clock(cue.end),
                    field=f"line {line}",
                )
            )
    stem = _stem(name)
    stamp = _ZOOM_STAMP.search(stem)
    return Recording(
        recording_id=checks.recording_id(stem, "file name"),
        title=" ".join(stem.replace("_", " ").split()),
        segments=segments,
        source_platform=kind,
        recorded_at=datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        if stamp
        else None,
    )


def _cues(text: str, kind: Literal["vtt", "srt"]) -> list[webvtt.Caption]:
    try:
        return list(webvtt.from_buffer(io.StringIO(text), format=kind).captions)
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError) as error:
        raise checks.RefusedError(None, f"is no {kind} file that can be read") from error


def _turns(raw: str) -> list[tuple[str | None, str]]:
    """Who says what in one cue: `<v Name>` voices, or Zoom's "Name: text"."""
    voices = _VOICE.split(raw)
    turns = [(None, voices[0]), *zip(voices[1::2], voices[2::2], strict=True)]
    result: list[tuple[str | None, str]] = []
    for voice, marked in turns:
        said = html.unescape(_TAG.sub("", marked)).strip()
        if not said and voice is None and len(turns) > 1:
            continue
        speaker = html.unescape(voice).strip() if voice else None
        named = None if speaker else _NAMED.match(said)
        if named:
            speaker, said = named[1], said[named.end() :]
        result.append((speaker, said))
    return result


def _clock(value: str) -> float:
    """Seconds of "HH:MM:SS.mmm", as the parser writes it."""
    hours, minutes, seconds = value.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _stem(name: str) -> str:
    stem = PurePath(name).name
    while stem.lower().endswith(_ENDINGS):
        stem = stem.rpartition(".")[0]
    return stem
