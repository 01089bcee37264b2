"""Finds files, tells their format by their content, and reads them one recording at a time."""

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast

from embedding_assets.engine.model import Recording
from embedding_assets.importers import captions, checks, fathom, json_lines
from embedding_assets.importers.checks import Notice, RefusedError, Rejection

MOST_LINE_BYTES = 256_000_000
ENDINGS = (".jsonl", ".ndjson", ".json", ".vtt", ".srt")
STDIN = "standard input"
_SRT = re.compile(rb"\s*\d+\s*\r?\n\s*[\d:,.]+\s*-->")
_UNKNOWN = "is of no known format: JSON lines, Fathom API JSON, WebVTT and SRT are read"
_BAD_UTF8 = "is not UTF-8: convert it"

Item = Recording | Notice | Rejection
Stream = io.BufferedReader


def read(paths: Iterable[Path | Literal["-"]]) -> Iterator[Item]:
    """Recordings, and before each the notices of what is odd in it; rejections of the rest.

    Streams: no more than one line, or one JSON document, is in memory. Never raises for what a
    file holds; a recording that comes a second time is rejected.
    """
    seen: dict[str, str] = {}
    for path in paths:
        for place, item in _items(path):
            if not isinstance(item, Recording):
                yield item
                continue
            first = seen.setdefault(item.recording_id, place)
            if first is place:
                yield item
            else:
                reason = f"is in this import already, from {first}"
                yield Rejection(place, "recording_id", reason, item.recording_id)


def _items(path: Path | Literal["-"]) -> Iterator[tuple[str, Item]]:
    if path == "-":
        yield from _file(STDIN, sys.stdin.buffer)
        return
    try:
        files = list(_files(path))
    except OSError as error:
        files = []
        yield str(path), Rejection(str(path), None, f"cannot be read: {error.strerror}")
    else:
        if not files:
            reason = f"holds no file that ends in {', '.join(ENDINGS)} or one of these and .gz"
            yield str(path), Rejection(str(path), None, reason)
    for file in files:
        try:
            with file.open("rb") as stream:
                yield from _file(str(file), stream)
        except OSError as error:
            yield str(file), Rejection(str(file), None, f"cannot be read: {error.strerror}")


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or the files of a folder that can be imported, in order."""
    if not path.is_dir():
        yield path
        return
    for each in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in each.relative_to(path).parts)
        name = each.name.lower().removesuffix(".gz")
        if each.is_file() and not hidden and name.endswith(ENDINGS):
            yield each


def _file(name: str, raw: IO[bytes]) -> Iterator[tuple[str, Item]]:
    try:
        with ExitStack() as stack:
            stream = _buffered(raw)
            stack.callback(stream.detach)
            if stream.peek(2)[:2] == b"\x1f\x8b":
                unzipped = stack.enter_context(gzip.GzipFile(fileobj=stream))
                stream = _buffered(unzipped)
            yield from _content(name, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield name, Rejection(name, None, "is a damaged gzip file: what came before was read")


def _buffered(raw: Any) -> Stream:
    return cast("Stream", io.BufferedReader(raw, 1 << 16))


def _content(name: str, stream: Stream) -> Iterator[tuple[str, Item]]:
    start = stream.peek(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        yield name, Rejection(name, None, "is empty")
    elif start.startswith((b"{", b"[")):
        yield from _json(name, stream)
    elif start.startswith(b"WEBVTT"):
        yield from _one(name, lambda: _captions(name, stream, "vtt"))
    elif _SRT.match(start):
        yield from _one(name, lambda: _captions(name, stream, "srt"))
    elif name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        yield from _lines(name, stream, b"")
    else:
        yield name, Rejection(name, None, _UNKNOWN)


def _captions(name: str, stream: Stream, kind: Literal["vtt", "srt"]) -> Recording:
    if name == STDIN:
        raise RefusedError(None, "captions have no id of their own: save them to a named file")
    return captions.recording(_decoded(_bounded(stream)), name, kind)


def _json(name: str, stream: Stream) -> Iterator[tuple[str, Item]]:
    """JSON lines if the first line is an object by itself, else one document."""
    first = stream.readline(MOST_LINE_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        document = _parsed(first)
    except RefusedError:
        if name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")):
            yield from _lines(name, stream, first)
            return
        try:
            document = _parsed(first + _bounded(stream))
        except RefusedError as error:
            yield name, Rejection(name, error.field, error.reason)
            return
    else:
        if isinstance(document, dict) and "items" not in document:
            yield from _lines(name, stream, first)
            return
    for where, record in _records(document):
        yield from _one(f"{name}{where}", lambda record=record: _recording(record))  # type: ignore[misc]


def _records(document: Any) -> Iterator[tuple[str, Any]]:
    """A page's items, an array's elements, or the document itself, and where each is."""
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        yield from ((f": items[{n}]", each) for n, each in enumerate(document["items"]))
    elif isinstance(document, list):
        yield from ((f": [{n}]", each) for n, each in enumerate(document))
    else:
        yield "", document


def _lines(name: str, stream: Stream, first: bytes) -> Iterator[tuple[str, Item]]:
    number = 0
    line = first or stream.readline(MOST_LINE_BYTES)
    while line:
        number += 1
        if line.strip():
            yield from _one(f"{name}:{number}", lambda line=line: _recording(_parsed(line)))  # type: ignore[misc]
        line = stream.readline(MOST_LINE_BYTES)


def _one(place: str, make: Callable[[], Recording]) -> Iterator[tuple[str, Item]]:
    recording: Recording | None = None
    try:
        recording = make()
        items = checks.finished(recording, place)
    except RefusedError as error:
        known = recording.recording_id if recording else None
        yield place, Rejection(place, error.field, error.reason, known)
    else:
        yield from ((place, item) for item in items)


def _recording(value: Any) -> Recording:
    record = checks.mapping(value, None)
    is_fathom = "segments" not in record and ("transcript" in record or "created_at" in record)
    return fathom.recording(record) if is_fathom else json_lines.recording(record)


def _bounded(stream: Stream) -> bytes:
    content = stream.read(MOST_LINE_BYTES + 1)
    if len(content) > MOST_LINE_BYTES:
        raise RefusedError(None, f"has more than {MOST_LINE_BYTES:,} bytes: use JSON lines")
    return content


def _parsed(data: bytes) -> Any:
    text = _decoded(data)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
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


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(None, f"{_BAD_UTF8} (byte {error.start})") from None
