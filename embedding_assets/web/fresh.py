"""Answers that are costly and the same for everybody, worked out at most every few seconds."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from embedding_assets.engine.database import Database

T = TypeVar("T")


class Fresh(Generic[T]):
    """What `work` gives, for one thread at a time, and again only after some seconds."""

    def __init__(self, seconds: float, work: Callable[[Database], T]) -> None:
        self._seconds = seconds
        self._work = work
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def of(self, database: Database) -> T:
        """The last answer, or a new one where that is old."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > self._seconds:
                self._last = time.monotonic(), self._work(database)
            return self._last[1]
