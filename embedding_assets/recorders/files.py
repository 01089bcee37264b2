"""Finds files, tells their format by their content, and reads them one recording at a time."""

import gzip
import io
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast

from embedding_assets.engine.model import Recording
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notice, RefusedError, Rejection
from embedding_assets.recorders.formats import captions, fathom, json_lines

MOST_LINE_BYTES = 256_000_000
JSON_LINES_ENDINGS = (".jsonl", ".ndjson")
ENDINGS = (*JSON_LINES_ENDINGS, ".json", ".vtt", ".srt")
STDIN = "standard input"
_BOM = b"\xef\xbb\xbf"
_SRT = re.compile(rb"(?:\d+\s*[\r\n]\s*)?-?[\d:,.]+\s*-->")
_UNKNOWN = "is of no known format: JSON lines, Fathom API JSON, WebVTT and SRT are read"
_BAD_UTF8 = "is not UTF-8: convert it"

Item = Recording | Notice | Rejection
Stream = io.BufferedReader


def read(paths: Iterable[Path | Literal["-"]]) -> Iterator[Item]:
    """Yields recordings, each after notices of what is unusual in it, and rejections.

    Reads as a stream: two lines or one JSON document are in memory at most. A bad file never
    raises, it gives a rejection; so does a recording that comes a second time.
    """
    seen: dict[str, str] = {}
    for path in paths:
        for place, item in _items(path):
            if not isinstance(item, Recording):
                yield item
                continue
            if item.recording_id in seen:
                reason = f"is in this import already, from {seen[item.recording_id]}"
                yield Rejection(place, "recording_id", reason, item.recording_id)
            else:
                seen[item.recording_id] = place
                yield item


def _items(path: Path | Literal["-"]) -> Iterator[tuple[str, Item]]:
    if path == "-":
        yield from _file(STDIN, sys.stdin.buffer)
        return
    name = _shown(path)
    try:
        files = list(_files(path))
    except OSError as error:
        yield name, Rejection(name, None, f"cannot be read: {error.strerror}")
        return
    if not files:
        reason = f"holds no file that ends in {', '.join(ENDINGS)} or one of these and .gz"
        yield name, Rejection(name, None, reason)
    for file in files:
        if isinstance(file, Rejection):
            yield file.place, file
        else:
            yield from _opened(file)


def _opened(file: Path) -> Iterator[tuple[str, Item]]:
    name = _shown(file)
    try:
        with file.open("rb") as stream:
            yield from _file(name, stream)
    except OSError as error:
        yield name, Rejection(name, None, f"cannot be read: {error.strerror}")
    except ValueError:  # a NUL in the name
        yield name, Rejection(name, None, "is no name a file can have")


def _files(path: Path) -> Iterator[Path | Rejection]:
    """The file itself, or the files of a folder that can be imported, in order."""
    if not path.is_dir():
        yield path
        return
    closed: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for each in sorted(names):
            is_taken = each.lower().removesuffix(".gz").endswith(ENDINGS)
            if is_taken and not each.startswith(".") and _opens(Path(folder, each)):
                yield Path(folder, each)
    for error in closed:
        yield Rejection(_shown(error.filename), None, f"cannot be read: {error.strerror}")


def _opens(file: Path) -> bool:
    """Whether to open it: not a pipe, which would block; a missing file is, for its error."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True


def _shown(path: Path | str) -> str:
    """The path as it can be printed and logged, whatever bytes are in it."""
    text = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


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
    start = stream.peek(1 << 12).removeprefix(_BOM).lstrip()
    if not start:
        yield name, Rejection(name, None, "is empty")
    elif start.startswith((b"{", b"[")):
        yield from _json(name, stream)
    elif start.startswith(b"WEBVTT"):
        yield from _one(name, lambda: _captions(name, stream, "vtt"))
    elif _SRT.match(start):
        yield from _one(name, lambda: _captions(name, stream, "srt"))
    elif name.lower().removesuffix(".gz").endswith(JSON_LINES_ENDINGS):
        yield from _lines(name, _numbered(stream))
    else:
        yield name, Rejection(name, None, _UNKNOWN)


def _captions(name: str, stream: Stream, kind: Literal["vtt", "srt"]) -> Recording:
    if name == STDIN:
        raise RefusedError(None, "captions have no id of their own: save them to a named file")
    return captions.recording(_decoded(_bounded(stream)), name, kind)


def _json(name: str, stream: Stream) -> Iterator[tuple[str, Item]]:
    """JSON lines, or one document, which may be written over several lines."""
    lines = _numbered(stream)
    head = list(islice(lines, 2))
    if _are_json_lines(name, [line for _, line in head]):
        yield from _lines(name, chain(head, lines))
        return
    before, data = 0, b""
    for number, line in head:
        data += b"\n" * (number - before - 1) + (line or b"")
        before = number
    try:
        document = _parsed(data + _bounded(stream))
    except RefusedError as error:
        yield name, Rejection(name, error.field, error.reason)
    else:
        yield from _values(name, document)


def _are_json_lines(name: str, head: Sequence[bytes | None]) -> bool:
    """Decides by two lines, so that the others are still read if the first one is broken."""
    first, second = [*((line or b"").strip() for line in head), b""][:2]
    if first.removeprefix(_BOM) in {b"{", b"["}:
        return False
    if name.lower().removesuffix(".gz").endswith(JSON_LINES_ENDINGS) or head[0] is None:
        return True
    complete = first.removeprefix(_BOM)[:1] + first[-1:] in {b"{}", b"[]"}
    goes_on = second[:1] in {b"", b",", b"]", b"}"}
    starts_anew = second.startswith(b"{") and first[-1:] not in {b"[", b"{", b",", b":"}
    return (complete and not goes_on) or starts_anew


def _records(document: Any) -> Iterator[tuple[str, Any]]:
    """The items of a page, the elements of an array, or the document itself, with their places."""
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        yield from ((f": items[{n}]", each) for n, each in enumerate(document["items"]))
    elif isinstance(document, list):
        yield from ((f": [{n}]", each) for n, each in enumerate(document))
    else:
        yield "", document


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


def _lines(name: str, lines: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[str, Item]]:
    for number, line in lines:
        place = f"{name}:{number}"
        try:
            value = _parsed(line)
        except RefusedError as error:
            yield place, Rejection(place, error.field, error.reason)
        else:
            yield from _values(place, value)


def _values(place: str, value: Any) -> Iterator[tuple[str, Item]]:
    for where, record in _records(value):
        yield from _one(f"{place}{where}", partial(_recording, record))


def _one(place: str, make: Callable[[], Recording]) -> Iterator[tuple[str, Item]]:
    recording: Recording | None = None
    try:
        recording = make()
        items = checks.finished(recording, place)
    except RefusedError as error:
        known = recording.recording_id if recording else None
        place = f"{place}:{error.line}" if error.line else place
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


def _parsed(data: bytes | None) -> Any:
    if data is None:
        raise RefusedError(None, f"has more than {MOST_LINE_BYTES:,} bytes")
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
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(None, f"{_BAD_UTF8} (byte {error.start})") from None
