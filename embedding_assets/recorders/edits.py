"""Keeps a person's edits and deletions with the words they were made on.

A recorder that sends a transcript again may have added, joined, split or corrected turns. What was
edited is found again by its words: first whole turns (a diff), then words within what changed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from embedding_assets.engine.model import Segment

_WORD = re.compile(r"\w+(?:['’]\w+)*")
LEAST_SHARE = 0.6  # of an edited turn's words that must be found again
LEAST_WORDS = 3  # of a turn that is looked for within others: "yes" is everywhere


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment as it is stored, with what a person made of it."""

    segment: Segment
    edited_text: str | None
    is_deleted: bool

    @property
    def has_edit(self) -> bool:
        """Whether a person edited or deleted it."""
        return self.is_deleted or self.edited_text is not None


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of a segment: its text in place of the recorder's, or its deletion."""

    edited_text: str | None
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A word, and where it is."""

    word: str
    turn: int
    start: int  # character of the turn's text
    end: int


@dataclass(frozen=True, slots=True)
class _Change:
    """What replaces some characters of a turn."""

    start: int
    end: int
    text: str


def words(text: str) -> list[str]:
    """The words as they are compared: without case and punctuation."""
    return [word.casefold() for word in _WORD.findall(text)]


def carried_over(
    before: Sequence[Stored], after: Sequence[Segment]
) -> tuple[Mapping[int, Edit], list[Stored]]:
    """The edits by the positions they belong to now, and those whose words are not there any more.

    A deletion whose words are now only a part of a turn takes them out of it; of an edited turn
    that was split, the first part gets the edit.
    """
    edited = [number for number, each in enumerate(before) if each.has_edit]
    matched, gaps = _matched([each.segment.text for each in before], [s.text for s in after])
    edits: dict[int, Edit] = {}
    changes: dict[int, list[_Change]] = {}
    lost: list[Stored] = []
    for number in edited:
        each = before[number]
        if number in matched:
            edits[matched[number]] = Edit(each.edited_text, each.is_deleted)
            continue
        found = _found(each.segment.text, after, gaps[number]) or _found(
            each.segment.text, after, range(len(after))
        )
        if not found:
            lost.append(each)
        for turn, change in _changes(each, found):
            changes.setdefault(turn, []).append(change)
    for turn, made in changes.items():
        if turn not in edits:
            edit = _applied(after[turn].text, made)
            if edit:
                edits[turn] = edit
    return {after[turn].position: edit for turn, edit in edits.items()}, lost


def _matched(
    before: Sequence[str], after: Sequence[str]
) -> tuple[dict[int, int], dict[int, range]]:
    """Equal turns by number; for each other turn, the new ones among which it may be."""
    old, new = [tuple(words(text)) for text in before], [tuple(words(text)) for text in after]
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    matched = {number: number for number in range(same)}
    matched |= {len(old) - n: len(new) - n for n in range(1, tail + 1)}
    gaps: dict[int, range] = {}
    matcher = SequenceMatcher(
        None, old[same : len(old) - tail], new[same : len(new) - tail], autojunk=False
    )
    for kind, first, last, first_new, last_new in matcher.get_opcodes():
        if kind == "equal":
            matched |= {same + n: same + n - first + first_new for n in range(first, last)}
        else:
            around = range(max(0, same + first_new - 1), min(len(new), same + last_new + 1))
            gaps |= {same + n: around for n in range(first, last)}
    return matched, gaps


def _found(text: str, after: Sequence[Segment], turns: Iterable[int]) -> list[_Place]:
    """The words of the text among those of the turns: enough of them, and close together."""
    wanted = words(text)
    places = [
        _Place(match[0].casefold(), turn, match.start(), match.end())
        for turn in turns
        for match in _WORD.finditer(after[turn].text)
    ]
    if len(wanted) < LEAST_WORDS or not places:
        return []
    matcher = SequenceMatcher(None, wanted, [place.word for place in places], autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return []
    best = max(blocks, key=lambda block: block.size)
    slack = len(wanted) // 2
    near = [b for b in blocks if abs((b.b - best.b) - (b.a - best.a)) <= slack]
    if sum(block.size for block in near) < LEAST_SHARE * len(wanted):
        return []
    return places[near[0].b : near[-1].b + near[-1].size]


def _changes(each: Stored, found: Sequence[_Place]) -> Iterator[tuple[int, _Change]]:
    replacement = "" if each.is_deleted else each.edited_text or ""
    for turn in dict.fromkeys(place.turn for place in found):
        here = [place for place in found if place.turn == turn]
        yield turn, _Change(here[0].start, here[-1].end, replacement)
        replacement = ""


def _applied(text: str, changes: Sequence[_Change]) -> Edit | None:
    """The text with the changes made; None if that is what the recorder says by now."""
    changed = text
    for change in sorted(changes, key=lambda each: each.start, reverse=True):
        rest = changed[change.end :]
        if not change.text:  # the end of a sentence goes with its words
            rest = rest.lstrip(".,;:!?… ") if not changed[: change.start].strip() else rest
        changed = changed[: change.start] + change.text + rest
    if words(changed) == words(text):
        return None
    is_gone = not words(changed)
    return Edit(None if is_gone else " ".join(changed.split()), is_gone)
