"""Walks through time in windows that one page answers.

Fathom's cursors count meetings: one that is deleted while somebody pages makes another be skipped.
A window that one page holds needs no cursor, so nothing can be skipped in it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from embedding_assets.engine.errors import TransientError
from embedding_assets.recorders.sync.api import Page
from embedding_assets.recorders.sync.meetings import meeting_id

Ask = Callable[[datetime, datetime, str | None], Page]

SECOND = timedelta(seconds=1)
FIRST = timedelta(hours=2)  # small: to double is progress, to halve is a request for nothing
WIDEST = timedelta(days=366)
MOST_GROWTH = 4.0
WANTED = 7  # meetings a window; a page has ten
MOST_PASSES = 5  # over the pages of one second


@dataclass(frozen=True, slots=True)
class Window:
    """The meetings created from `start` on and before `end`, perhaps with some of either side."""

    start: datetime
    end: datetime
    meetings: list[Any]


def walk(ask: Ask, start: datetime, end: datetime) -> Iterator[Window]:
    """Windows, oldest first and without gaps, that together hold all that was created in between.

    Args:
        ask: gives one page of what was created after the first moment and before the second.
        start: cut to the whole second.
        end: rounded up to the whole second.

    Raises:
        TransientError: one second holds more than a page, and its pages change all the time.
    """
    at = start.replace(microsecond=0)
    width = FIRST
    while at < end:
        until = min(at + width, _whole(end))
        page = ask(at - SECOND, until, None)
        if page.next_cursor is None:
            meetings = page.items
        elif until - at > SECOND:
            width = _seconds((until - at) / 2)
            continue
        else:
            meetings = _paged(ask, at - SECOND, until, page)
        yield Window(at, until, meetings)
        factor = WANTED / len(meetings) if meetings else MOST_GROWTH
        width = min(_seconds((until - at) * min(max(factor, 0.5), MOST_GROWTH)), WIDEST)
        at = until


def _paged(ask: Ask, after: datetime, before: datetime, first: Page) -> list[Any]:
    """All pages of a window that cannot be halved, read until two passes agree."""
    read = _follow(ask, after, before, first)
    for _ in range(MOST_PASSES - 1):
        again = _follow(ask, after, before, ask(after, before, None))
        if again.keys() == read.keys():
            return list(again.values())
        read = again
    raise TransientError("Fathom's pages of one second change while they are read")


def _follow(ask: Ask, after: datetime, before: datetime, page: Page) -> dict[str, Any]:
    read: dict[str, Any] = {}
    while True:
        read |= {meeting_id(each): each for each in page.items}
        if page.next_cursor is None:
            return read
        page = ask(after, before, page.next_cursor)


def _whole(moment: datetime) -> datetime:
    cut = moment.replace(microsecond=0)
    return cut if cut == moment else cut + SECOND


def _seconds(width: timedelta) -> timedelta:
    return max(SECOND, timedelta(seconds=width // SECOND))
