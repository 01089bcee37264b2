"""Decides which call a file is that has no id of its own.

Its name proposes an id. Words decide: a file with the words of a known one is the same call,
wherever it lies now; a file of the same name with other words is another call, with another id.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from embedding_assets.engine.database import Connection
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.edits import words
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.statements import sql

LEAST_SHARED = 0.5  # of the shorter transcript's phrases, for two files to be one call
LEAST_SHARED_HERE = 0.1  # the same, where a file is in the place of another
PHRASE = 3  # words
FEW_WORDS = 50  # of a transcript too short to be told from another by its phrases


@dataclass(frozen=True, slots=True)
class Identity:
    """The call that a recording is."""

    recording_id: str
    is_known: bool = False
    from_file: str | None = None  # where it was read before, if it was a file


def content_hash(segments: Sequence[Segment]) -> bytes:
    """SHA-256 of what was said and when, to a tenth of a second; the format does not matter."""
    said = [
        (None if each.start_seconds is None else round(each.start_seconds, 1), words(each.text))
        for each in segments
        if each.text.strip()
    ]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).digest()


def identify(connection: Connection, recording: Recording, digest: bytes) -> Identity:
    """The call that it is. The caller holds the lock of its proposed id, and writes before the end.

    `digest` is the `content_hash` of its segments.

    Ids that recorders gave are kept, unless another recorder gave the same one to another call:
    then the recorder's name stands before it.
    """
    if recording.file is None:
        return _given(connection, recording)
    candidates = list(
        sql.like_this_file(connection, recording_id=recording.recording_id, content_hash=digest)
    )
    for row in sorted(candidates, key=lambda row: row.recording_id != recording.recording_id):
        if row.is_file and row.content_hash == digest:
            return Identity(row.recording_id, is_known=True, from_file=row.file)
    for row in candidates:
        if row.is_file and _is_same(connection, recording, row):
            return Identity(row.recording_id, is_known=True, from_file=row.file)
    if not any(row.recording_id == recording.recording_id for row in candidates):
        return Identity(recording.recording_id)
    return Identity(f"{recording.recording_id}-{digest.hex()[:8]}")


def phrases(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every three words that follow each other; all words, if they are fewer."""
    said = [word for text in texts for word in words(text)]
    return {tuple(said[n : n + PHRASE]) for n in range(max(1, len(said) - PHRASE + 1))}


def shared(some: set[tuple[str, ...]], others: set[tuple[str, ...]]) -> float:
    """The part of the smaller set that is in the other, from 0 to 1 (the overlap coefficient)."""
    return len(some & others) / max(1, min(len(some), len(others)))


def _is_same(connection: Connection, recording: Recording, row: Any) -> bool:
    stored = sql.stored_segments(connection, recording_id=row.recording_id)
    mine = phrases(each.text for each in recording.segments)
    theirs = phrases(each.text for each in stored)
    is_here = row.file == recording.file
    if is_here and min(len(mine), len(theirs)) < FEW_WORDS:
        return True
    return shared(mine, theirs) >= (LEAST_SHARED_HERE if is_here else LEAST_SHARED)


def _given(connection: Connection, recording: Recording) -> Identity:
    known = sql.platform_of(connection, recording_id=recording.recording_id)
    if known is None:
        return Identity(recording.recording_id)
    if known.file is not None and not _is_same(connection, recording, known):
        return Identity(f"{recording.source_platform}-{recording.recording_id}")
    is_anybodys = {known.source_platform, recording.source_platform} & {None, "import"}
    if is_anybodys or known.source_platform == recording.source_platform:
        return Identity(recording.recording_id, is_known=True)
    return Identity(f"{recording.source_platform}-{recording.recording_id}")
