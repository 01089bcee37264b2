"""Decides whether a transcript may replace the stored one: never by less."""

import re
from collections.abc import Sequence

from embedding_assets.engine.model import Segment
from embedding_assets.recorders.edits import words

LEAST_WORDS = 20  # of a transcript that can be called longer than another
LEAST_SHARE = 0.5  # of its words that another must have to replace it
MOST_ERROR_WORDS = 40
_ERROR = re.compile(
    r"(transcript|transcription|recording|audio|caption)\w*\b.{0,80}"
    r"\b(fail|error|unavailable|not available|not ready|processing|could not|cannot|expired)",
    re.IGNORECASE | re.DOTALL,
)


def why_less(before: Sequence[Segment], after: Sequence[Segment]) -> str | None:
    """Why the new transcript must not replace the stored one; None if it may."""
    had, has = _count(before), _count(after)
    if had == 0:
        return None
    if has == 0:
        return "what came now is empty"
    if has <= MOST_ERROR_WORDS and has < had and len(after) <= 2 and _is_error(after):
        return "what came now looks like an error's text"
    if had >= LEAST_WORDS and has < LEAST_SHARE * had:
        return f"what came now has {has:,} words instead of {had:,}"
    if _named(before) * 2 > len(before) and not _named(after):
        return "what came now names no speaker"
    return None


def is_better(before: Sequence[Segment], after: Sequence[Segment]) -> bool:
    """Whether the second of two transcripts of one call tells more: speakers, then words."""
    return (bool(_named(after)), _count(after)) > (bool(_named(before)), _count(before))


def _count(segments: Sequence[Segment]) -> int:
    return sum(len(words(each.text)) for each in segments)


def _named(segments: Sequence[Segment]) -> int:
    return sum(each.speaker is not None for each in segments)


def _is_error(segments: Sequence[Segment]) -> bool:
    return _ERROR.search(" ".join(each.text for each in segments)) is not None
