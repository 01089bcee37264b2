"""Fills a second model beside the live one, then switches search to it in one transaction."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from psycopg import Rollback

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders import Embedded, Embedder, cost_usd
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    RequestTooLargeError,
)
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.packing import Input, Packer, largest_request
from embedding_assets.engine.publication import AttemptFigures, give_back
from embedding_assets.engine.queue import Claim
from embedding_assets.engine.vectors import InsertBatch, add_model, store_vectors, vector_rows
from embedding_assets.engine.verdicts import REFUSED_RECORDINGS

PAGE = 200  # published texts looked up at once


def switch_model(
    database: Database,
    embedder: Embedder,
    insert_batch: InsertBatch,
    progress: Callable[[int], None] = lambda _: None,
    refused: Callable[[str, str], None] = lambda *_: None,
) -> int:
    """Embeds every published text the model has no vector of, then makes the model live.

    Gives the number of texts embedded. Interrupted, it continues where it stopped; search reads
    the old model until the last moment.

    A text that the model refuses does not hold up all others: `refused` is told its recording and
    the reason, and the switch goes on without its vector, so that search by meaning misses that
    text until it is edited. What every request cost is written down as a released attempt of a
    recording that says its first text.

    Raises:
        ConfigurationError: the model cannot be used, or refuses every text; nothing was switched.
        TransientError: the model or the database stayed away; nothing was switched.
    """
    filling = _Filling(database, embedder, insert_batch, progress, refused)
    while not database.retrying(lambda c: _make_live(c, embedder.model, filling.refused)):
        filling.fill()
    return filling.embedded


def fill_model(
    database: Database,
    embedder: Embedder,
    insert_batch: InsertBatch,
    progress: Callable[[int], None] = lambda _: None,
    refused: Callable[[str, str], None] = lambda *_: None,
) -> int:
    """As `switch_model`, without the switch: search goes on with the old model."""
    filling = _Filling(database, embedder, insert_batch, progress, refused)
    filling.fill()
    return filling.embedded


@contextlib.contextmanager
def as_if_live(database: Database, model: str) -> Iterator[None]:
    """Within the block, what this connection searches reads the vectors of another model.

    It is a transaction in which the model is live and which is rolled back. Publications wait for
    it to end, so a block should be a single search.
    """
    with database.transaction() as connection, connection.transaction(force_rollback=True):
        sql.retire_live_model(connection)
        sql.make_model_live(connection, model=model)
        yield


class _Filling:
    """What one switch has embedded so far, and what the model refused."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        insert_batch: InsertBatch,
        progress: Callable[[int], None],
        tell_refused: Callable[[str, str], None],
    ) -> None:
        self.embedded = 0
        self.refused: set[bytes] = set()
        self._database = database
        self._embedder = embedder
        self._batch = insert_batch
        self._progress = progress
        self._tell_refused = tell_refused
        self._run_id = f"switch-model {uuid.uuid4()}"
        database.retrying(lambda c: add_model(c, embedder))

    def fill(self) -> None:
        """One pass over the published texts, in the order of their hash."""
        for page in self._pages():
            recordings = {bytes(row.content_hash): row.recording_id for row in page}
            packer = Packer(self._embedder.limits)
            for row in page:
                content_hash = bytes(row.content_hash)
                if content_hash not in self.refused:
                    planned = self._embedder.planned_tokens(row.chunk_text)
                    packer.add(Input(content_hash, row.chunk_text, planned))
            while inputs := packer.take(flush=True):
                self._embed(inputs, packer, recordings)
                packer.max_tokens = largest_request(self._embedder)

    def _pages(self) -> Iterator[list[Any]]:
        after = b""
        while True:
            with self._database.transaction() as connection:
                rows = list(
                    sql.texts_without_vector(
                        connection, model=self._embedder.model, after=after, limit=PAGE
                    )
                )
            if not rows:
                return
            yield rows
            after = bytes(rows[-1].content_hash)

    def _embed(self, inputs: list[Input], packer: Packer, recordings: dict[bytes, str]) -> None:
        """One request: stores what it brings, or halves it until what is refused stands alone."""
        started = time.monotonic()
        recording_id = recordings[inputs[0].content_hash]
        try:
            answer = self._embedder.embed([item.text for item in inputs])
        except InvalidInputError as error:
            is_one = len(inputs) == 1
            figures = self._figures(started, error)
            self._record(recording_id, figures, error if is_one else None)
            if is_one:
                self._refuse(inputs[0], recording_id, error)
            else:
                half = len(inputs) // 2
                packer.put_back(inputs[:half], inputs[half:])
        except RequestTooLargeError as error:
            figures = self._figures(started, error)
            self._record(recording_id, figures)
            packer.max_tokens = largest_request(self._embedder)
            packer.unpack(inputs)
        except EmbeddingAssetsError as error:
            figures = self._figures(started, error)
            self._record(recording_id, figures)
            raise
        else:
            # Recorded before the vectors are stored: it is paid even if storing them fails.
            figures = self._figures(started, answer, embedded=len(inputs))
            self._record(recording_id, figures)
            rows = vector_rows(inputs, answer)
            store_vectors(self._database, self._embedder.model, rows, self._batch)
            self.embedded += len(inputs)
            self._progress(self.embedded)

    def _refuse(self, refused: Input, recording_id: str, error: InvalidInputError) -> None:
        self.refused.add(refused.content_hash)
        if not self.embedded and len(self.refused) >= REFUSED_RECORDINGS:
            raise ConfigurationError(
                f"{error}; so it did with the first {len(self.refused)} texts, and it accepted"
                " none: check OPENAI_BASE_URL, EMBEDDING_MODEL and EMBEDDING_MAX_INPUT_TOKENS;"
                " search still reads the old model"
            )
        self._tell_refused(recording_id, str(error))

    def _figures(
        self, started: float, spent: Embedded | EmbeddingAssetsError, *, embedded: int = 0
    ) -> AttemptFigures:
        return AttemptFigures(
            lane=Lane.standard,
            model=self._embedder.model,
            chunks=0,
            embedded=embedded,
            reused=0,
            requests=spent.requests,
            tokens=spent.tokens,
            cost_usd=cost_usd(spent.tokens, self._embedder.price_per_million_tokens),
            seconds=time.monotonic() - started,
            smallest_insert_batch=self._batch.rows,
            refusals=spent.refusals,
        )

    def _record(
        self, recording_id: str, figures: AttemptFigures, reason: InvalidInputError | None = None
    ) -> None:
        claim = Claim(recording_id, attempts=0)  # names the attempt; nothing is claimed
        self._database.retrying(lambda c: give_back(c, self._run_id, [(claim, figures)], reason))


def _make_live(connection: Connection, model: str, refused: Iterable[bytes]) -> bool:
    """Switches, unless a text was published meanwhile that the model has no vector of."""
    # The lock first: publications hold it too, so that the look sees all that they published.
    is_whole = False
    with connection.transaction() as switch:
        sql.retire_live_model(connection)
        is_whole = not sql.lacks_a_vector(connection, model=model, refused=list(refused))
        if not is_whole:
            raise Rollback(switch)
        sql.make_model_live(connection, model=model)
    return is_whole
