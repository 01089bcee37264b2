"""What pages, the API and agents share: who asks, and searches that are counted and bounded."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import EmbeddingAssetsError, TransientError
from embedding_assets.search import calls
from embedding_assets.search.access import reading
from embedding_assets.search.search import Answer, Mode, search
from embedding_assets.server.connections import application_url, source_url
from embedding_assets.settings import Settings
from embedding_assets.web.metrics import SEARCH_ERRORS, SEARCH_SECONDS
from embedding_assets.web.pool import Pool
from embedding_assets.web.readers import Readers, Who

T = TypeVar("T")

MOST_CHARACTERS = 2000  # of a question
SLOW_CONNECTIONS = 2
SOURCE_CONNECTIONS = 2
BODIES = 4  # that are held at once
BODY_SECONDS = 60.0
# For so long a model that did not answer is not asked again, and words alone are searched at once.
AWAY_SECONDS = 5.0
NO_CALLS = "there is no call to search yet, or none that you may see"


class Service:
    """One process's connections, model and readers."""

    def __init__(
        self, settings: Settings, embedder: Embedder, readers: Readers, *, connections: int
    ) -> None:
        self.settings = settings
        self.embedder = embedder
        self.readers = readers
        self.pool = Pool(application_url(settings), connections)
        self.slow_pool = Pool(application_url(settings), SLOW_CONNECTIONS)
        """For figures and checks, which count whole tables: searches do not wait for them."""
        self.source_pool = Pool(source_url(settings), SOURCE_CONNECTIONS, is_for_reading=False)
        """Connections that may write the recorders' tables."""
        self._bodies = asyncio.Semaphore(BODIES)
        self._away: tuple[float, str] | None = None  # until when, and why

    @property
    def seconds(self) -> float:
        """How long one statement of a request may take."""
        return self.settings.serve_search_seconds

    async def answer(
        self, request: Request, work: Callable[[Database, Who], T], *, is_slow: bool = False
    ) -> T:
        """What `work` gives for whoever asks; it ends when they go away.

        Raises:
            EmbeddingAssetsError: they may not ask, or the work failed.
        """
        peer = request.client.host if request.client else None
        return await (self.slow_pool if is_slow else self.pool).run(
            lambda database: work(database, self.readers.who(database, request.headers, peer)),
            lambda: disconnected(request),
        )

    async def who(self, request: Request) -> Who:
        """Who asks, before their body is read; raises as `answer` does."""
        peer = request.client.host if request.client else None
        return await self.pool.run(
            lambda database: self.readers.who(database, request.headers, peer)
        )

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body. A few at once are held in memory, each for a bounded time to come.

        Raises:
            TransientError: it did not come in time.
        """
        async with self._bodies:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await request.body()
            except TimeoutError:
                raise TransientError(f"the body did not come within {BODY_SECONDS:g} s") from None
            yield body

    def search(self, database: Database, who: Who, question: str, **options: Any) -> Answer:
        """Searches for whoever asks, for a bounded time, and counts it."""
        is_local = self.settings.embedding_provider == "local"
        started = time.monotonic()
        away = self._away
        is_away = away is not None and started < away[0]
        if is_away and options.get("mode", Mode.hybrid) is Mode.hybrid:
            options["mode"] = Mode.keyword
        else:
            away = None
        try:
            answer = search(
                database,
                self.embedder,
                question,
                reader=who.reader,
                # A model on this machine is never away: it is waited for while it loads.
                seconds=None if is_local else self.settings.search_embedding_seconds,
                database_seconds=self.seconds,
                **options,
            )
        except EmbeddingAssetsError as error:
            SEARCH_ERRORS.labels(str(error.kind)).inc()
            raise
        SEARCH_SECONDS.labels(str(answer.mode)).observe(time.monotonic() - started)
        if away is not None:
            answer = replace(answer, notice=away[1])
        else:
            self._away = (time.monotonic() + AWAY_SECONDS, answer.notice) if answer.notice else None
        if not answer.hits and not self._has_calls(database, who):
            return replace(answer, notice=NO_CALLS)
        return answer

    def _has_calls(self, database: Database, who: Who) -> bool:
        with reading(database, who.reader, self.seconds) as connection:
            return bool(calls.calls(connection, limit=1))

    def close(self) -> None:
        """Ends what runs, and closes the connections."""
        self.embedder.close()
        for pool in (self.pool, self.slow_pool, self.source_pool):
            pool.close()

    def warm_up(self) -> None:
        """Loads the model in the background, so that the first person does not wait for it."""
        if self.settings.embedding_provider == "local":
            threading.Thread(target=self.embedder.embed, args=(["hello"],), daemon=True).start()


async def disconnected(request: Request) -> None:
    """Returns once the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
