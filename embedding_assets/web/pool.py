"""A bounded number of connections to the database, and work on them that a client can end."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import EmbeddingAssetsError, TransientError

T = TypeVar("T")

WAIT_SECONDS = 30.0  # for a connection
CANCEL_AGAIN_SECONDS = 0.05
NAME = "embedding-assets serve"


class BusyError(EmbeddingAssetsError):
    """Every connection was at work for too long."""


class ClientGoneError(EmbeddingAssetsError):
    """Nobody waits for the answer any more; what the database did for it was ended."""


class Pool:
    """Threads with a connection each, for the requests of one process.

    Args:
        url: of the database.
        size: the most connections.
        is_for_reading: work that met a broken connection is done again on a new one, once.
    """

    def __init__(self, url: str, size: int, *, is_for_reading: bool = True) -> None:
        self._url = url
        self._is_for_reading = is_for_reading
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="database")
        self._own = threading.local()
        self._opened: list[Database] = []
        self._busy: set[Database] = set()

    async def run(
        self, work: Callable[[Database], T], gone: Callable[[], Awaitable[None]] | None = None
    ) -> T:
        """What `work` gives, from a thread that is free.

        Args:
            work: uses the connection in its own thread.
            gone: returns once nobody waits for the answer; what the database does is ended then.

        Raises:
            BusyError: no connection became free in time.
            ClientGoneError: `gone` returned before the work ended.
        """
        job = _Job()
        future = self._threads.submit(self._work, work, job)
        working = asyncio.wrap_future(future)
        watching = asyncio.ensure_future(gone()) if gone else asyncio.Future[None]()
        either: set[asyncio.Future[Any]] = {working, watching}
        try:
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(either, timeout=WAIT_SECONDS, return_when=first)
            if not done:
                if future.cancel():
                    raise BusyError("too many ask at once; try again in a moment")
                await asyncio.wait(either, return_when=first)
            if working.done():
                return working.result()
            raise ClientGoneError("the client went away")
        finally:
            watching.cancel()
            if not working.done() and not future.cancel():
                with anyio.CancelScope(shield=True):
                    await asyncio.to_thread(job.end)
                    await asyncio.wait({working})
                    working.exception()  # it was ended, and nobody asks why

    def close(self) -> None:
        """Ends what runs, and closes the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._busy:  # again, as a statement may have begun just after
            for database in list(self._busy):
                database.cancel()
            time.sleep(CANCEL_AGAIN_SECONDS)
        self._threads.shutdown()
        for database in self._opened:
            database.close()

    def _work(self, work: Callable[[Database], T], job: "_Job") -> T:
        database: Database | None = getattr(self._own, "database", None)
        if database is None:
            database = Database(self._url, application_name=NAME)
            if not self._is_for_reading:
                database.check_schema()
            self._own.database = database
            self._opened.append(database)
        was_connected = database.is_connected
        self._busy.add(database)
        with job.using(database):
            try:
                return work(database)
            except TransientError:
                # The server was restarted, or a pooler closed what was idle.
                if not (self._is_for_reading and was_connected) or database.is_connected:
                    raise
                return work(database)
            finally:
                self._busy.discard(database)


class _Job:
    """What one request does with a connection, so that another thread can end that and no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._has_ended = False

    @contextlib.contextmanager
    def using(self, database: Database) -> Iterator[None]:
        with self._lock:
            self._database = database
        try:
            yield
        finally:
            with self._lock:
                self._database = None
                if self._has_ended:
                    database.close()

    def end(self) -> None:
        """Ends what the database does for it; its connection is closed after that."""
        with self._lock:
            if self._database is not None:
                self._has_ended = True
                self._database.cancel()
