"""Cuts a transcript into chunks along speaker turns, by tokens.

Of the boundaries at which a chunk may end, it ends at the one whose *position* has the lowest hash,
not at the last one that fits. (This is content-defined chunking, as in rsync and FastCDC, with
positions of turns instead of contents.) An edit changes sizes and texts but no positions, so it
moves only the boundaries near it. The other chunks stay the same and are not embedded again.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.model import Chunk, Segment, Turn
from embedding_assets.engine.redaction.redactor import Redaction
from embedding_assets.engine.tokens import count

LABEL_CHARACTERS = 80
# Takes linear time on any text, for instance on a megabyte of dots: a match starts only at the
# first dot of a row (look-behind) and never backtracks (possessive quantifiers).
_SENTENCE_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’)\]]*+\s++ | [。！？]++["'”’」』)\]]*+\s*+""", re.VERBOSE
)
_WORD = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Sizes in tokens of `engine.tokens`, and what is left out, whatever the model.

    Raises:
        ConfigurationError: the three do not fit together.
    """

    target: int
    overlap: int
    maximum: int
    redaction: Redaction | None = None

    @property
    def name(self) -> str:
        """What published recordings say of how they were cut: target/overlap/maximum, redacted."""
        sizes = f"{self.target}/{self.overlap}/{self.maximum}"
        return sizes if self.redaction is None else f"{sizes} without {self.redaction.name}"

    def __post_init__(self) -> None:
        if self.target + self.overlap > self.maximum:
            raise ConfigurationError(
                f"CHUNK_TARGET_TOKENS={self.target} and CHUNK_OVERLAP_TOKENS={self.overlap} come"
                f" to more than CHUNK_MAX_TOKENS={self.maximum}: lower one or raise the maximum"
            )
        if self.overlap > self.target:
            raise ConfigurationError(
                f"CHUNK_OVERLAP_TOKENS={self.overlap} is more than CHUNK_TARGET_TOKENS="
                f"{self.target}: lower it"
            )

    @property
    def high(self) -> int:
        """The most tokens of a chunk, without those that it repeats from the chunk before."""
        return self.maximum - self.overlap

    @property
    def low(self) -> int:
        """The fewest tokens of a chunk, without those that it repeats, if a boundary allows it.

        `target` is the middle between `low` and `high`.
        """
        return max(1, 2 * self.target - self.high)


class _Piece(NamedTuple):
    """A turn, or a part of a long turn; a chunk takes it whole."""

    segment: Segment
    part: int
    text: str  # the parts of a turn add up to its text, to the last character
    label: str  # "Speaker: ", or nothing
    text_tokens: int
    label_tokens: int

    @property
    def rank(self) -> tuple[bool, int]:
        """How good a boundary before this piece is; the lowest is the best.

        The start of a turn is better than the middle of one; among equals, the hash decides.
        """
        mixed = (self.segment.position * 0x9E3779B1 + self.part * 0x85EBCA6B) & 0xFFFFFFFF
        return self.part > 0, ((mixed ^ mixed >> 15) * 0x2C1B3C6D) & 0xFFFFFFFF

    def cost(self, label_before: str | None) -> int:
        """Its tokens; the speaker's name precedes it at a chunk's start and at a new speaker."""
        return self.text_tokens + (self.label_tokens if self.label != label_before else 0)


def chunk(segments: Iterable[Segment], settings: ChunkSettings) -> Iterator[Chunk]:
    """Chunks in order; every character of every segment's text is in at least one of them.

    Segments without text are skipped. A chunk begins with the last sentences of the chunk before
    it, as many as fit into `overlap` tokens.
    """
    index = 0
    overlap: list[_Piece] = []
    body: list[_Piece] = []
    size = 0
    low, high = settings.low, settings.high
    for piece in _pieces(segments, low, high):
        size += piece.cost(body[-1].label if body else None)
        body.append(piece)
        while size > high:
            cut = _cut(body, low, high)
            yield _assemble(index, overlap, body[:cut])
            index += 1
            overlap = _tail(body[:cut], settings.overlap)
            body = body[cut:]
            size = _size(body)
    if body:
        yield _assemble(index, overlap, body)


def _cut(body: Sequence[_Piece], low: int, high: int) -> int:
    """How many of these pieces, which are too many for one chunk, the next chunk takes."""
    best, best_rank = 0, (True, 1 << 32)
    size, label = 0, None
    for taken, piece in enumerate(body):
        if size > high:
            break
        if taken and size >= low and piece.rank < best_rank:
            best, best_rank = taken, piece.rank
        last_fitting = taken
        size += piece.cost(label)
        label = piece.label
    return best or max(1, last_fitting)


def _size(pieces: Sequence[_Piece]) -> int:
    size, label = 0, None
    for piece in pieces:
        size += piece.cost(label)
        label = piece.label
    return size


def _tail(body: Sequence[_Piece], overlap: int) -> list[_Piece]:
    """What the next chunk repeats of this one: whole pieces, then whole sentences."""
    tail: list[_Piece] = []
    room = overlap
    for piece in reversed(body):
        tokens = piece.text_tokens + piece.label_tokens
        if tokens > room:
            ending = _ending(piece, room - piece.label_tokens)
            return [ending, *tail] if ending is not None else tail
        tail.insert(0, piece)
        room -= tokens
    return tail


def _ending(piece: _Piece, room: int) -> _Piece | None:
    """The last whole sentences of a piece that fit."""
    text, tokens = "", 0
    for sentence in reversed(_sentences(piece.text)):
        longer = count(sentence + text)
        if longer > room:
            break
        text, tokens = sentence + text, longer
    return piece._replace(text=text, text_tokens=tokens) if text.strip() else None


def _assemble(index: int, overlap: Sequence[_Piece], body: Sequence[_Piece]) -> Chunk:
    texts: list[str] = []
    length, tokens, repeated = 0, 0, 0
    segments: list[Segment] = []
    turns: list[Turn] = []
    label = None
    for number, piece in enumerate([*overlap, *body]):
        segment, text = piece.segment, piece.text
        if not segments or segment is not segments[-1]:
            if segments:
                texts.append("\n")
                length += 1
            segments.append(segment)
            turns.append(Turn(length, segment.position, segment.speaker, segment.start_seconds))
        if number == len(overlap):
            repeated = length
        if piece.label != label:
            text = piece.label + text
        texts.append(text)
        length += len(text)
        tokens += piece.cost(label)
        label = piece.label
    starts = [s.start_seconds for s in segments if s.start_seconds is not None]
    ends = [s.end_seconds for s in segments if s.end_seconds is not None]
    whole = "".join(texts)
    return Chunk(
        index=index,
        text=whole,
        token_count=tokens,
        speakers=tuple(dict.fromkeys(s.speaker for s in segments if s.speaker)),
        start_seconds=min(starts, default=None),
        end_seconds=max([*starts, *ends], default=None),
        first_position=segments[0].position,
        last_position=segments[-1].position,
        content_hash=hashlib.sha256(whole.encode()).digest(),
        turns=tuple(turns),
        repeated=repeated,
    )


def _pieces(segments: Iterable[Segment], low: int, high: int) -> Iterator[_Piece]:
    labels: dict[str | None, tuple[str, int]] = {}
    for segment in segments:
        if not segment.text.strip():
            continue
        known = labels.get(segment.speaker)
        if known is None:
            known = labels[segment.speaker] = _label(segment.speaker, high // 4)
        label, label_tokens = known
        limit = high - label_tokens
        for part, (text, tokens) in enumerate(_parts(segment.text, low, limit)):
            yield _Piece(segment, part, text, label, tokens, label_tokens)


def _label(speaker: str | None, most_tokens: int) -> tuple[str, int]:
    """The speaker and a colon; long names are cut, so that room is left for the text."""
    for label in labels(speaker):
        tokens = count(label)
        if tokens <= most_tokens:
            return label, tokens
    return "", 0


def labels(speaker: str | None) -> Iterator[str]:
    """How a speaker may be named before what they say, the longest first."""
    name = " ".join((speaker or "").split())[:LABEL_CHARACTERS]
    while name:
        yield f"{name}: "
        name = name[: len(name) // 2]


def _parts(text: str, whole: int, limit: int) -> Iterable[tuple[str, int]]:
    """A short turn whole; a long one in sentences, none longer than `limit` tokens."""
    tokens = count(text)
    return [(text, tokens)] if tokens <= min(whole, limit) else _shorter(text, limit)


def _shorter(text: str, limit: int) -> Iterator[tuple[str, int]]:
    """Sentences, and groups of words of those that are longer than `limit` tokens."""
    for sentence in _sentences(text):
        tokens = count(sentence)
        if tokens <= limit:
            yield sentence, tokens
        else:
            yield from _grouped(_WORD.findall(sentence) or [sentence], limit)


def _sentences(text: str) -> list[str]:
    """The text's sentences; joined, they are the text again."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends) if start < end]


def _grouped(words: Iterable[str], limit: int) -> Iterator[tuple[str, int]]:
    """Groups of as many words as fit; a word that does not fit alone is cut between characters."""
    group, size = "", 0
    for word in words:
        tokens = count(word)
        if size + tokens > limit and group:
            yield group, count(group)
            group, size = "", 0
        if tokens > limit:
            half = len(word) // 2
            yield from _grouped([word[:half], word[half:]], limit)
        else:
            group, size = group + word, size + tokens
    if group:
        yield group, count(group)
