"""Captions: WebVTT, SRT and SBV, as Zoom, Teams, Webex, Meet and YouTube write them."""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import cues, graph_metadata, names, rolling
from embedding_assets.recorders.formats.cues import Cue
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording

# No pattern may look past the next "<": a cue of a megabyte of "<a" must not take minutes.
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
# Only the tags the formats know: whatever else stands between "<" and ">" was said.
_TAG = re.compile(
    r"</?(?:[cibu]|ruby|rt)(?:\.[^\s<>]*)?>|</?(?:v|lang|font)(?:[.\s][^<>]*)?>"
    r"|<(?:\d+:)?\d{2}:\d{2}\.\d{3}>|\{\\[^{}]{0,100}\}",
    re.I,
)
_BARE = re.compile(r"<([cibu]|ruby|rt|font)>", re.I)
_CLOSING = re.compile(r"</([cibu]|ruby|rt|font)>")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|lrm|rlm|#\d{1,7}|#x[0-9a-f]{1,6});", re.I)
_WEBEX = re.compile(r'\d+ "(.*)" \(\d+\)')
_DASH = re.compile(r"(?:[-–—]|>{2,3})\s*(?=\S)")
_ZOOM_STAMP = re.compile(r"GMT(\d{8}-\d{6})")


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one voice says in one cue."""

    cue: Cue
    voice: str | None
    lines: tuple[str, ...]


def recording(text: str, kind: cues.Kind, source: Source, notes: Notes) -> Recording:
    """A file of captions; id, title and (Zoom's stamp) date come from its name.

    A cue that cannot be taken loses itself alone, and is told.
    """
    found = list(cues.cues(text, kind))
    made = source.recording(kind, language=cues.language(text) if kind == "vtt" else None)
    if graph_metadata.recognises(found):
        return graph_metadata.recording(found, made, notes)
    turns = _turns(found)
    segments: list[Segment] = []
    for turn in turns:
        _add(segments, turn, notes)
    return replace(made, segments=segments, recorded_at=_recorded_at(made.recording_id))


def _turns(found: Sequence[Cue]) -> list[_Turn]:
    voiced = [
        _Turn(cue, voice, lines)
        for cue in rolling.unrolled([replace(cue, lines=_plain_lines(cue.lines)) for cue in found])
        for voice, lines in _voices(cue)
    ]
    # A line that goes on within a cue needs no speaker, and counts only if it seems to have one.
    starts = [
        _undashed(line)
        for turn in voiced
        if turn.voice is None
        for number, line in enumerate(turn.lines)
        if number == 0 or names.prefix(_undashed(line))
    ]
    known = names.speakers(starts)
    return [each for turn in voiced for each in _by_line(turn, known)]


def _plain_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines without markup but `<v>`, which tells who speaks.

    A bare `<b>` that nothing closes was said: "use the <b> key".
    """
    closed = set(_CLOSING.findall("\n".join(lines).lower()))

    def markup(tag: re.Match[str]) -> str:
        bare = _BARE.fullmatch(tag[0])
        was_said = bare is not None and bare[1].lower() not in closed
        return tag[0] if was_said or _VOICE.fullmatch(tag[0]) else ""

    return tuple(line for each in lines if (line := _TAG.sub(markup, each).strip()))


def _voices(cue: Cue) -> Iterator[tuple[str | None, tuple[str, ...]]]:
    """Who says what in one cue, by its `<v Name>` tags or its identifier; else None."""
    webex = _WEBEX.fullmatch(cue.identifier)
    before, *voices = _VOICE.split("\n".join(cue.lines))
    if before.strip() or not voices:
        yield (webex[1] if webex else None), _unescaped(before)
    for voice, said in zip(voices[::2], voices[1::2], strict=True):
        yield " ".join(_unescaped(voice)), _unescaped(said)


def _unescaped(text: str) -> tuple[str, ...]:
    plain = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return tuple(line.strip() for line in plain.split("\n") if line.strip())


def _by_line(turn: _Turn, known: frozenset[str]) -> Iterator[_Turn]:
    """A turn for each line that begins with a speaker's name, or with a dash among other such."""
    dashes = sum(_DASH.match(line) is not None for line in turn.lines)
    voice, lines, started = turn.voice, list[str](), False
    for line in turn.lines:
        split = names.prefix(_undashed(line)) if turn.voice is None else None
        is_named = split is not None and split[0] in known
        is_new = is_named or (turn.voice is None and dashes > 1 and _DASH.match(line) is not None)
        if is_new and started:
            yield replace(turn, voice=voice, lines=tuple(lines))
            lines, voice = [], None
        if is_named and split:
            voice = split[0]
            lines.append(split[1])
        else:
            lines.append(_undashed(line) if is_new or line.startswith(">>") else line)
        started = True
    yield replace(turn, voice=voice, lines=tuple(lines))


def _undashed(line: str) -> str:
    return _DASH.sub("", line, count=1) if _DASH.match(line) else line


def _add(segments: list[Segment], turn: _Turn, notes: Notes) -> None:
    """Appends the turn as a segment, unless it cannot be stored."""
    cue, position = turn.cue, len(segments)
    notes.at(position, cue.line)
    if cue.start is None or cue.end is None:
        notes.add(
            "cue.start",
            "cannot be read as a time such as 00:00:01.000 --> 00:00:02.500: it"
            " was taken without one",
            cue.line,
        )
    try:
        start, end = checks.seconds(cue.start, "cue.start"), checks.seconds(cue.end, "cue.end")
        if start is not None and end is not None and end < start:
            notes.add("cue.end", "is before the start: it was taken without an end", cue.line)
            end = None
        segments.append(
            checks.segment(
                position,
                checks.optional_name(turn.voice, "cue.speaker"),
                "\n".join(turn.lines),
                start=start,
                end=end,
                field="cue",
            )
        )
    except checks.RefusedError as error:
        notes.add(error.field, f"{error.reason}; this cue was left out", cue.line)


def _recorded_at(stem: str) -> datetime | None:
    stamp = _ZOOM_STAMP.search(stem)
    try:
        return datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if stamp else None
    except ValueError:  # a stamp that is no date
        return None
