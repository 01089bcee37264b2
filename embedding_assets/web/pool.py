"""A bounded number of connections to the database, and work on them that a client can end."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import EmbeddingAssetsError

T = TypeVar("T")

WAIT_SECONDS = 10.0  # for a connection; who waited longer is told so, and asks the database nothing
NAME = "embedding-assets serve"


class BusyError(EmbeddingAssetsError):
    """Every connection was at work for too long."""


class ClientGoneError(EmbeddingAssetsError):
    """Nobody waits for the answer any more; what the database did for it was ended."""


class Pool:
    """Threads with a connection each, for the requests of one process."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="database")
        self._own = threading.local()
        self._opened: list[Database] = []

    async def run(
        self, work: Callable[[Database], T], gone: Callable[[], Awaitable[None]] | None = None
    ) -> T:
        """What `work` gives, from a thread that is free.

        Args:
            work: uses the connection in its own thread.
            gone: returns once nobody waits for the answer; the running statement is ended then.

        Raises:
            BusyError: no connection became free in time.
            ClientGoneError: `gone` returned before the work ended.
        """
        job = _Job(time.monotonic())
        future = self._threads.submit(self._work, work, job)
        working = asyncio.wrap_future(future)
        waiting: set[asyncio.Future[Any]] = {working}
        watching = None if gone is None else asyncio.ensure_future(gone())
        if watching is not None:
            waiting.add(watching)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientGoneError("the client went away")
        finally:
            if watching is not None:
                watching.cancel()
            if not working.done() and not future.cancel():
                await asyncio.to_thread(job.end)
                await asyncio.wait({working})
                working.exception()  # it was ended, and nobody asks why

    def close(self) -> None:
        """Ends what runs, and closes the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for database in self._opened:
            database.cancel()
        self._threads.shutdown()
        for database in self._opened:
            database.close()

    def _work(self, work: Callable[[Database], T], job: "_Job") -> T:
        if time.monotonic() - job.since > WAIT_SECONDS:
            raise BusyError("too many ask at once; try again in a moment")
        database: Database | None = getattr(self._own, "database", None)
        if database is None:
            database = self._own.database = Database(self._url, application_name=NAME)
            self._opened.append(database)
        with job.using(database):
            return work(database)


class _Job:
    """What one request does with a connection, so that another thread can end that and no more."""

    def __init__(self, since: float) -> None:
        self.since = since
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
        """Ends the running statement, if there is one; its connection is closed after that."""
        with self._lock:
            if self._database is not None:
                self._has_ended = True
                self._database.cancel()
