"""Tells the names of speakers from sentences that have a colon."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

MOST_WORDS = 5
# No pattern may look past the first colon: a line of a megabyte must not take minutes.
_PREFIX = re.compile(r"([^:<>?!;\n]{1,80}):\s+(?=\S)")
_NOTE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]$")  # "(Acme)", "[host]"
# Parts of names that are written small.
_PARTICLES = frozenset(
    {"al", "bin", "da", "de", "del", "della", "den", "der", "di", "dos", "du", "el", "ibn", "la"}
    | {"le", "ten", "ter", "van", "vom", "von", "y", "zu", "te", "und", "and"}
)
# Words with which people begin a sentence that has a colon; none of them names anybody.
_NO_NAMES = frozenset((Path(__file__).parent / "no_names.txt").read_text().split())


def prefix(line: str) -> tuple[str, str] | None:
    """What stands before a line's first colon, and the rest; None if that can be no name."""
    match = _PREFIX.match(line)
    if match is None:
        return None
    words = _NOTE.sub("", match[1]).split()
    if not 0 < len(words) <= MOST_WORDS or not any(c.isalpha() for c in match[1]):
        return None
    return " ".join(match[1].split()), line[match.end() :]


def speakers(lines: Iterable[str]) -> frozenset[str]:
    """The names of those who speak, in lines that begin with a name and a colon.

    A name counts if it comes again, or if most lines have one and it looks like a name: words with
    capitals, none of which begins sentences. In doubt it is none: then the words before the colon
    stay where search finds them.
    """
    every = list(lines)
    found = Counter(split[0] for line in every if (split := prefix(line)))
    again = {
        name for name, times in found.items() if times > 1 and _comes_again(name, times, len(every))
    }
    once = set()
    if found.total() * 2 >= len(every):
        # Where those who speak often have two names, one word that comes once is none of them.
        have_two = sum(_is_long(name) for name in again) * 2 > len(again)
        once = {
            name
            for name in found
            if _has_capitals(name)
            and not _says_something(name)
            and (_is_long(name) or not have_two)
        }
    return frozenset(again | once)


def _comes_again(name: str, times: int, lines: int) -> bool:
    """Whoever writes their name small, or is called "So An", must speak often."""
    is_often = times * 10 >= lines
    if _says_something(name):
        return is_often and _is_long(name) and _has_capitals(name)
    return is_often or _has_capitals(name)


def _is_long(name: str) -> bool:
    return len(name.split()) > 1


def _says_something(name: str) -> bool:
    """Whether one of its words begins sentences."""
    words = _NOTE.sub("", name).split()
    return any(word.strip(".,'\"").casefold() in _NO_NAMES for word in words)


def _has_capitals(name: str) -> bool:
    """Whether every word begins with a capital, a digit, or a letter that has no capitals."""
    words = [word for word in _NOTE.sub("", name).split() if word.casefold() not in _PARTICLES]
    return bool(words) and not any(word.lstrip("\"'(")[:1].islower() for word in words)
