"""The words of the domain as types: segment, turn, chunk."""

from dataclasses import dataclass
from typing import NamedTuple


class Segment(NamedTuple):
    """One speaker turn as the recorder gives it. Times are seconds from the recording's start."""

    position: int
    speaker: str | None
    text: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    speaker_email: str | None = None


class Turn(NamedTuple):
    """Where in a chunk's text a segment begins, with its label if it has one there."""

    offset: int  # in characters
    position: int  # of the segment
    speaker: str | None
    start_seconds: float | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is embedded: the exact text sent to the model, and where in the call it was said.

    `first_position` and `last_position` are those of the segments the text comes from, both ends
    included; times and speakers are those segments' too, speakers in the order they first speak.
    Its first `repeated` characters are the last of the chunk before it; the first of `turns` begins
    at 0, perhaps in the middle of what was said.
    """

    index: int
    text: str
    token_count: int
    speakers: tuple[str, ...]
    start_seconds: float | None
    end_seconds: float | None
    first_position: int
    last_position: int
    content_hash: bytes  # SHA-256 of the UTF-8 text
    turns: tuple[Turn, ...]
    repeated: int
