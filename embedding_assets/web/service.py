"""What pages, the API and agents share: who asks, and searches that are counted and bounded."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.search.search import Answer, search
from embedding_assets.settings import Settings
from embedding_assets.web.metrics import SEARCH_ERRORS, SEARCH_SECONDS
from embedding_assets.web.pool import Pool
from embedding_assets.web.readers import Readers, Who

T = TypeVar("T")

MOST_CHARACTERS = 2000  # of a question


class Service:
    """One process's connections, model and readers."""

    def __init__(
        self,
        settings: Settings,
        embedder: Embedder,
        pool: Pool,
        source_pool: Pool,
        readers: Readers,
    ) -> None:
        self.settings = settings
        self.embedder = embedder
        self.pool = pool
        self.source_pool = source_pool
        """Connections that may write the recorders' tables."""
        self.readers = readers

    @property
    def seconds(self) -> float:
        """How long one statement of a request may take."""
        return self.settings.serve_search_seconds

    async def answer(self, request: Request, work: Callable[[Database, Who], T]) -> T:
        """What `work` gives for whoever asks; it ends when they go away.

        Raises:
            EmbeddingAssetsError: they may not ask, or the work failed.
        """
        peer = request.client.host if request.client else None
        return await self.pool.run(
            lambda database: work(database, self.readers.who(database, request.headers, peer)),
            lambda: disconnected(request),
        )

    async def who(self, request: Request) -> Who:
        """Who asks; raises as `answer` does."""
        return await self.answer(request, lambda _, who: who)

    def search(self, database: Database, who: Who, question: str, **options: Any) -> Answer:
        """Searches for whoever asks, for a bounded time, and counts it."""
        is_local = self.settings.embedding_provider == "local"
        started = time.monotonic()
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
        return answer

    def close(self) -> None:
        """Ends what runs, and closes the connections."""
        self.pool.close()
        self.source_pool.close()
        self.embedder.close()

    def warm_up(self) -> None:
        """Loads the model in the background, so that the first person does not wait for it."""
        if self.settings.embedding_provider == "local":
            threading.Thread(target=self.embedder.embed, args=(["hello"],), daemon=True).start()


async def disconnected(request: Request) -> None:
    """Returns once the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
