"""Undoes rolling captions, in which a line stays on the screen while the next ones come in."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from embedding_assets.recorders.formats.cues import Cue

MOST_GAP = 0.1  # seconds between two cues of one roll


def unrolled(cues: Sequence[Cue]) -> list[Cue]:
    """Each line once, from the time it first came in; cues that do not roll, as they are.

    Captions roll if at least half of the neighbouring cues share a line, and some of these add one.
    A word that somebody says twice is not enough.
    """
    pairs = [(before, after) for before, after in pairwise(cues) if before.lines and after.lines]
    shared = [_shared(before, after) for before, after in pairs]
    adds = any(
        number and (number < len(after.lines) or after.lines[number - 1] != before.lines[-1])
        for number, (before, after) in zip(shared, pairs, strict=True)
    )
    if len(pairs) < 2 or not adds or sum(map(bool, shared)) * 2 < len(pairs):
        return list(cues)
    return list(_once(cues))


def _once(cues: Sequence[Cue]) -> Iterator[Cue]:
    before: Cue | None = None  # as it was shown
    pending: Cue | None = None  # as it will be told: what came in new, which may still grow
    for cue in cues:
        if not cue.lines:
            continue
        shared = _shared(before, cue) if before else 0
        if before and pending and shared and cue.lines[shared - 1] != before.lines[-1]:
            grown = (*pending.lines[:-1], cue.lines[shared - 1])
            pending = replace(pending, lines=grown, end=cue.end)
        new = cue.lines[shared:]
        if new:
            if pending:
                yield pending
            pending = replace(cue, lines=new)
        before = cue
    if pending:
        yield pending


def _shared(before: Cue, after: Cue) -> int:
    """How many first lines of a cue were on the screen before, the last of them perhaps shorter."""
    if (
        before.end is None
        or after.start is None
        or not -MOST_GAP < after.start - before.end < MOST_GAP
    ):
        return 0
    for number in range(min(len(before.lines), len(after.lines)), 0, -1):
        *stayed, last = before.lines[-number:]
        now = after.lines[number - 1]
        if stayed == list(after.lines[: number - 1]) and (
            now == last or now.startswith(f"{last} ")
        ):
            return number
    return 0
