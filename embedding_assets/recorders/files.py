"""Finds files and opens them, unzipped, whatever is in them."""

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from embedding_assets.recorders.checks import Notice, Rejection

JSON_LINES_ENDINGS = (".jsonl", ".ndjson")
ENDINGS = (*JSON_LINES_ENDINGS, ".json", ".vtt", ".srt", ".sbv")
STDIN = "standard input"
MOST_NAMED = 5  # files that a folder's notice names

Stream = io.BufferedReader


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open for reading, with the name to tell of it."""

    name: str
    path: str | None  # absolute; None for standard input
    stream: Stream

    def ends_in(self, *endings: str) -> bool:
        """Whether the name has one of these endings, or one of them and .gz."""
        return self.name.lower().removesuffix(".gz").endswith(endings)


Reader = Callable[[OpenFile], Iterator[tuple[str, Any]]]


def each_file(
    path: Path | Literal["-"], read: Reader, is_known: Callable[[OpenFile], bool]
) -> Iterator[tuple[str, Any]]:
    """What `read` gives for the file, for each file of a folder, or for standard input.

    What a folder holds is read if its name says so or its content is known; the rest is told in
    one notice. Nothing raises: a file that cannot be read gives a rejection.
    """
    if path == "-":
        yield from _unzipped(STDIN, None, sys.stdin.buffer, read)
    elif _is_folder(path):
        yield from _folder(path, read, is_known)
    else:
        yield from _opened(path, read)


def shown(path: Path | str) -> str:
    """The path as it can be printed and logged, whatever bytes are in it."""
    text = os.fsencode(path).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _folder(
    path: Path, read: Reader, is_known: Callable[[OpenFile], bool]
) -> Iterator[tuple[str, Any]]:
    closed: list[OSError] = []
    unread: list[str] = []
    is_bare = True
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in (Path(folder, each) for each in sorted(names) if not each.startswith(".")):
            if not _opens(file):
                continue
            if _named_so(file) or any(known for _, known in _opened(file, _look(is_known))):
                is_bare = False
                yield from _opened(file, read)
            else:
                unread.append(shown(file.relative_to(path)))
    for error in closed:
        yield _rejected(shown(error.filename), f"cannot be read: {error.strerror}")
    name = shown(path)
    if unread:
        more = f" and {len(unread) - MOST_NAMED} more" if len(unread) > MOST_NAMED else ""
        files = "1 file was" if len(unread) == 1 else f"{len(unread)} files were"
        reason = (
            f"{files} not read, being of no known format: {', '.join(unread[:MOST_NAMED])}{more}"
        )
        yield name, Notice(name, None, reason)
    if is_bare:
        yield _rejected(name, "holds no file of a known format")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _named_so(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(ENDINGS)


def _look(is_known: Callable[[OpenFile], bool]) -> Reader:
    def look(file: OpenFile) -> Iterator[tuple[str, Any]]:
        yield file.name, is_known(file)

    return look


def _opens(file: Path) -> bool:
    """Whether to open it: not a pipe, which would block; a missing file is, for its error."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True


def _opened(file: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    name = shown(file)
    try:
        with file.open("rb") as raw:
            yield from _unzipped(name, shown(file.absolute()), raw, read)
    except OSError as error:
        yield _rejected(name, f"cannot be read: {error.strerror}")
    except ValueError:  # a NUL in the name
        yield _rejected(name, "is no name a file can have")


def _unzipped(
    name: str, path: str | None, raw: IO[bytes], read: Reader
) -> Iterator[tuple[str, Any]]:
    try:
        with ExitStack() as stack:
            stream = _buffered(raw)
            stack.callback(stream.detach)
            if stream.peek(2)[:2] == b"\x1f\x8b":
                unzipped = stack.enter_context(gzip.GzipFile(fileobj=stream))
                stream = _buffered(unzipped)
            yield from read(OpenFile(name, path, stream))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield _rejected(name, "is a damaged gzip file: what came before was read")


def _buffered(raw: Any) -> Stream:
    return cast("Stream", io.BufferedReader(raw, 1 << 16))


def _rejected(name: str, reason: str) -> tuple[str, Rejection]:
    return name, Rejection(name, None, reason)
