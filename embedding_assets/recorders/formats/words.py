"""Puts single words, as speech-to-text gives them, together to segments."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks

PAUSE = 2.0  # seconds of silence that end a segment
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
MOST_WORDS = 200  # of a segment without the end of a sentence


@dataclass(frozen=True, slots=True)
class Word:
    """One word, or one punctuation mark that belongs to the word before it."""

    text: str
    start: float | None
    end: float | None
    speaker: str | None
    joins: bool = False


def segments(words: Iterable[Word]) -> list[Segment]:
    """A segment for each sentence of each speaker; a pause ends one, too.

    Raises:
        RefusedError: a text cannot be stored.
    """
    return [_segment(position, group) for position, group in enumerate(_groups(words))]


def _groups(words: Iterable[Word]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and not word.joins and _ends(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _ends(group: list[Word], word: Word) -> bool:
    last = group[-1]
    if word.speaker != last.speaker or len(group) >= MOST_WORDS:
        return True
    if last.text.endswith(SENTENCE_ENDS):
        return True
    return last.end is not None and word.start is not None and word.start - last.end > PAUSE


def _segment(position: int, group: list[Word]) -> Segment:
    said = "".join(("" if word.joins else " ") + word.text for word in group).strip()
    starts = [word.start for word in group if word.start is not None]
    ends = [word.end for word in group if word.end is not None]
    start, end = min(starts, default=None), max(ends, default=None)
    return checks.segment(
        position, group[0].speaker, said, start=start, end=end, field=f"segments[{position}]"
    )
