"""Turns of speakers, as published chunks hold them."""

from typing import Any

from embedding_assets.engine.chunking import labels
from embedding_assets.engine.model import Turn


def turns_of(row: Any) -> tuple[Turn, ...]:
    """The turns of a chunk's row; one for all of it, where an older version published it."""
    if row.turn_offsets is None:
        return (Turn(0, row.first_position, None, row.start_seconds),)
    facts = zip(
        row.turn_offsets, row.turn_positions, row.turn_speakers, row.turn_seconds, strict=True
    )
    return tuple(
        Turn(offset, position, row.speakers[place - 1] if place else None, seconds)
        for offset, position, place, seconds in facts
    )


def label_length(text: str, turn: Turn, before: Turn | None) -> int:
    """How many characters of a chunk's text, from the turn on, only name its speaker."""
    if turn.speaker is None or (before is not None and before.speaker == turn.speaker):
        return 0
    found = (label for label in labels(turn.speaker) if text.startswith(label, turn.offset))
    return len(next(found, ""))
