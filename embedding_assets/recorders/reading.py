"""Tells a file's format by its content, and reads it one recording at a time."""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes, Notice, RefusedError, Rejection
from embedding_assets.recorders.decoding import decoded, is_utf16
from embedding_assets.recorders.files import JSON_LINES_ENDINGS, OpenFile, Stream, each_file
from embedding_assets.recorders.formats import JSON_FORMATS, TEXT_FORMATS, captions
from embedding_assets.recorders.formats.cues import Kind
from embedding_assets.recorders.formats.format import Format
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.formats.text import TextFormat
from embedding_assets.recorders.model import Recording

MOST_LINE_BYTES = 256_000_000
_HEAD = 1 << 14  # bytes by which a format is recognised
_MOST_KEYS = 6  # of an unknown document, that are told
_SRT = re.compile(r"(?:\d+\s*[\r\n]\s*)?-?[\d:,.]+\s*-->")
_SBV = re.compile(r"\d+:\d{2}:\d{2}\.\d{3},\d+:\d{2}:\d{2}\.\d{3}\s*[\r\n]")
_KEY = re.compile(r"[A-Za-z_][\w-]{0,29}")
_NAMES = (*(each.name for each in JSON_FORMATS), "WebVTT", "SRT", "SBV")
_KNOWN = ", ".join((*_NAMES, *(each.name for each in TEXT_FORMATS)))

Item = Recording | Notice | Rejection
Make = Callable[[Notes], Recording]


def read(paths: Iterable[Path | Literal["-"]]) -> Iterator[Item]:
    """Yields recordings, each after notices of what is unusual in it, and rejections.

    Reads as a stream: two lines or one document are in memory at most. A bad file never raises, it
    gives a rejection; so does a recording that comes a second time.
    """
    seen: dict[str, str] = {}
    for path in paths:
        for place, item in each_file(path, _content, _is_known):
            if not isinstance(item, Recording):
                yield item
                continue
            key = f"file {item.file}" if item.file else f"id {item.recording_id}"
            if key in seen:
                reason = f"is in this import already, from {seen[key]}"
                yield Rejection(place, "recording_id", reason, item.recording_id)
            else:
                seen[key] = place
                yield item


def read_document(document: Any, place: str) -> Iterator[Item]:
    """The recordings of one parsed JSON document, as `read` gives them."""
    yield from (item for _, item in _values(place, Source(None), document))


def read_as(format_: Format, part: Any, place: str) -> Iterator[Item]:
    """One call of a document whose format is known, as `read` gives it."""
    yield from (item for _, item in _one(place, partial(_part, format_, part, Source(None))))


def _is_known(file: OpenFile) -> bool:
    """Whether captions or text of a known format begin so."""
    head = _head(file.stream)
    return _captions_kind(head) is not None or _text_format(head) is not None


def _head(stream: Stream) -> str:
    """The first characters, without a byte order mark and white space."""
    start = stream.peek(_HEAD)[:_HEAD]
    if is_utf16(start):
        start = start[: len(start) // 2 * 2]
    try:
        return decoded(start)[0].lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return ""


def _captions_kind(head: str) -> Kind | None:
    if head.startswith("WEBVTT"):
        return "vtt"
    if _SRT.match(head):
        return "srt"
    return "sbv" if _SBV.match(head) else None


def _text_format(head: str) -> TextFormat | None:
    return next((each for each in TEXT_FORMATS if each.recognises(head)), None)


def _content(file: OpenFile) -> Iterator[tuple[str, Item]]:
    start = file.stream.peek(_HEAD)
    head = _head(file.stream)
    kind, text_format = _captions_kind(head), _text_format(head)
    if not start.strip():
        yield file.name, Rejection(file.name, None, "is empty")
    elif kind:
        yield from _text(file, lambda *given: captions.recording(given[0], kind, *given[1:]))
    elif text_format:
        yield from _text(file, text_format.recording)
    elif head.startswith(("{", "[")):
        yield from _json(_as_utf8(file) if is_utf16(start) else file)
    elif file.ends_in(*JSON_LINES_ENDINGS):
        yield from _lines(file, _numbered(file.stream))
    else:
        yield file.name, Rejection(file.name, None, f"is of no known format; known are: {_KNOWN}")


def _as_utf8(file: OpenFile) -> OpenFile:
    text, _ = decoded(file.stream.read(MOST_LINE_BYTES + 2))
    return replace(
        file, stream=cast("Stream", io.BufferedReader(cast("Any", io.BytesIO(text.encode()))))
    )


def _text(
    file: OpenFile, make: Callable[[str, Source, Notes], Recording]
) -> Iterator[tuple[str, Item]]:
    def recording(notes: Notes) -> Recording:
        text, remark = _decoded(_bounded(file.stream))
        if remark:
            notes.add(None, remark)
        return make(text, Source(file.path), notes)

    yield from _one(file.name, recording)


def _json(file: OpenFile) -> Iterator[tuple[str, Item]]:
    """JSON lines, or one document, which may be written over several lines."""
    lines = _numbered(file.stream)
    head = list(islice(lines, 2))
    if _are_json_lines(file, [line for _, line in head]):
        yield from _lines(file, chain(head, lines))
        return
    before, data = 0, b""
    for number, line in head:
        data += b"\n" * (number - before - 1) + (line or b"")
        before = number
    yield from _parsed(file.name, file, lambda: data + _bounded(file.stream))


def _are_json_lines(file: OpenFile, head: Sequence[bytes | None]) -> bool:
    """Decides by two lines, so that the others are still read if the first one is broken."""
    first, second = [*((line or b"").strip() for line in head), b""][:2]
    first = first.removeprefix(b"\xef\xbb\xbf")
    if first in {b"{", b"["}:
        return False
    if file.ends_in(*JSON_LINES_ENDINGS) or head[0] is None:
        return True
    complete = first[:1] + first[-1:] in {b"{}", b"[]"}
    goes_on = second[:1] in {b"", b",", b"]", b"}"}
    starts_anew = second.startswith(b"{") and first[-1:] not in {b"[", b"{", b",", b":"}
    return (complete and not goes_on) or starts_anew


def _numbered(stream: Stream) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank; None for one that is too long."""
    number = 0
    while line := stream.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
            yield number, None
        elif line.strip():
            yield number, line


def _lines(file: OpenFile, lines: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[str, Item]]:
    for number, line in lines:
        yield from _parsed(f"{file.name}:{number}", file, lambda line=line: line)  # type: ignore[misc]


def _parsed(
    place: str, file: OpenFile, data: Callable[[], bytes | None]
) -> Iterator[tuple[str, Item]]:
    """What is in a line or file that holds one JSON document."""
    try:
        value, remark = _document(data())
    except RefusedError as error:
        yield place, Rejection(place, error.field, error.reason)
        return
    if remark:
        yield place, Notice(place, None, remark)
    yield from _values(place, Source(file.path), value)


def _values(place: str, source: Source, value: Any) -> Iterator[tuple[str, Item]]:
    """The calls of a document, or of each document in an array or a page of `items`."""
    format_ = next((each for each in JSON_FORMATS if each.recognises(value)), None)
    if format_:
        try:
            parts = list(format_.parts(value))
        except RefusedError as error:
            yield place, Rejection(place, error.field, error.reason)
            return
        for where, part in parts:
            yield from _one(f"{place}{where}", partial(_part, format_, part, source))
    elif isinstance(value, dict) and isinstance(value.get("items"), list):
        for number, each in enumerate(value["items"]):
            yield from _values(f"{place}: items[{number}]", source, each)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _values(f"{place}: [{number}]", source, each)
    else:
        yield place, Rejection(place, None, _unknown(value))


def _part(format_: Format, part: Any, source: Source, notes: Notes) -> Recording:
    return format_.recording(part, source, notes)


def _unknown(value: Any) -> str:
    """What a document looks like that no format recognises; its values are not told."""
    if not isinstance(value, dict):
        return f"is {checks.kind(value)}, not an object"
    keys = [key for key in value if _KEY.fullmatch(key)][:_MOST_KEYS]
    looks = f"has the keys {', '.join(keys)}" if keys else "has no keys"
    return f"is JSON of no known format: it {looks}; known are: {_KNOWN}"


def _one(place: str, make: Make) -> Iterator[tuple[str, Item]]:
    notes = Notes(place)
    recording: Recording | None = None
    try:
        recording = make(notes)
        recording = checks.finished(recording, notes)
    except RefusedError as error:
        known = recording.recording_id if recording else None
        yield from ((place, each) for each in notes.notices(known))
        yield place, Rejection(place, error.field, error.reason, known)
    else:
        yield from ((place, each) for each in notes.notices(recording.recording_id))
        yield place, recording


def _bounded(stream: Stream) -> bytes:
    content = stream.read(MOST_LINE_BYTES + 1)
    if len(content) > MOST_LINE_BYTES:
        raise RefusedError(None, f"has more than {MOST_LINE_BYTES:,} bytes: use JSON lines")
    return content


def _document(data: bytes | None) -> tuple[Any, str | None]:
    if data is None:
        raise RefusedError(None, f"has more than {MOST_LINE_BYTES:,} bytes")
    text, remark = _decoded(data)
    try:
        return json.loads(text, parse_constant=_refuse_constant), remark
    except json.JSONDecodeError as error:
        raise RefusedError(
            None, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise RefusedError(None, "is nested too deeply") from None
    except ValueError:
        raise RefusedError(None, "holds a number with too many digits") from None


def _refuse_constant(name: str) -> NoReturn:
    raise RefusedError(None, f"holds {name}, which is not JSON: use null")


def _decoded(data: bytes) -> tuple[str, str | None]:
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise RefusedError(
            None, f"is in no encoding that is known: convert it to UTF-8 (byte {error.start})"
        ) from None
