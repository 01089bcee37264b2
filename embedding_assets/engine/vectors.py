"""The vectors: content-addressed, append-only, one row for each text and model."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders import Embedded, Embedder
from embedding_assets.engine.errors import ConfigurationError, StatementTimeoutError
from embedding_assets.engine.packing import Input, share

LARGEST_BATCH = 1_000
COMFORTABLE = 0.2  # batches grow only while an insert takes less than this share of the timeout


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One text's vector, by the SHA-256 of the text."""

    content_hash: bytes
    embedding: NDArray[np.float32]
    token_count: int


def vector_rows(inputs: Sequence[Input], answer: Embedded) -> list[VectorRow]:
    """An answer's vectors with their texts' hashes; its tokens divided as they were planned."""
    tokens = share(answer.tokens, [item.planned_tokens for item in inputs])
    return [
        VectorRow(item.content_hash, vector, count)
        for item, vector, count in zip(inputs, answer.vectors, tokens, strict=True)
    ]


class InsertBatch:
    """How many rows one insert takes: halves on a statement timeout, grows back slowly."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.smallest = rows

    def shrink(self) -> bool:
        """Halves the batch; False when it is one row already."""
        if self.rows == 1:
            return False
        self.rows //= 2
        self.smallest = min(self.smallest, self.rows)
        return True

    def grow(self) -> None:
        """Makes the batch larger, after an insert that took little of its time."""
        self.rows = min(self.rows + max(1, self.rows // 10), LARGEST_BATCH)


def store_vectors(
    database: Database,
    model: str,
    rows: Iterable[VectorRow],
    batch: InsertBatch,
    *,
    heartbeat: Callable[[], None] = lambda: None,
    guard: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Adds vectors in small committed batches that no reader sees.

    Args:
        database: the application's.
        model: whose vectors these are.
        rows: the vectors.
        batch: how many rows an insert takes.
        heartbeat: called before each insert.
        guard: called in the transaction of each insert; it raises where nothing may be written.

    Raises:
        StatementTimeoutError: even one row takes longer than the server's statement_timeout.
    """

    def insert(connection: Connection) -> None:
        guard(connection)
        _insert(connection, model, part)

    # All runs insert in the order of the hash, so that two of them cannot deadlock.
    remaining = sorted(rows, key=lambda row: row.content_hash)
    while remaining:
        part = remaining[: batch.rows]
        heartbeat()
        started = time.monotonic()
        try:
            database.retrying(insert)
        except StatementTimeoutError:
            if not batch.shrink():
                raise
            continue
        remaining = remaining[len(part) :]
        if time.monotonic() - started < database.statement_seconds * COMFORTABLE:
            batch.grow()


def _insert(connection: Connection, model: str, rows: Sequence[VectorRow]) -> None:
    sql.store_vectors(
        connection,
        model=model,
        hashes=[row.content_hash for row in rows],
        embeddings=[row.embedding for row in rows],
        token_counts=[row.token_count for row in rows],
    )


def stored_hashes(connection: Connection, model: str, hashes: Iterable[bytes]) -> set[bytes]:
    """Which of these texts the model has a vector of already."""
    rows = sql.stored_hashes(connection, model=model, hashes=list(hashes))
    return {bytes(row.content_hash) for row in rows}


def hold_vectors(connection: Connection, model: str, hashes: Iterable[bytes]) -> set[bytes]:
    """As `stored_hashes`, and locks the vectors: no sweep deletes them before the commit."""
    rows = sql.hold_vectors(connection, model=model, hashes=list(hashes))
    return {bytes(row.content_hash) for row in rows}


def add_model(connection: Connection, embedder: Embedder) -> None:
    """Makes the embedder's model known, and live if none is."""
    sql.add_model(connection, model=embedder.model, dimensions=embedder.dimensions)


def register_model(connection: Connection, embedder: Embedder) -> None:
    """As `add_model`, for a model whose vectors are to be searched.

    Raises:
        ConfigurationError: another model is live; vectors of this one would not be searched.
    """
    add_model(connection, embedder)
    require_live(connection, embedder)


def hold_live(connection: Connection, model: str) -> None:
    """Locks the live model until the end of the transaction, so that nobody switches it.

    Raises:
        ConfigurationError: search switched to another model while this run was going on.
    """
    live = sql.hold_live_model(connection)
    if live is None or live.model != model:
        raise ConfigurationError(
            f"search was switched to another model while this run embedded with {model}: set"
            " EMBEDDING_PROVIDER, EMBEDDING_MODEL and EMBEDDING_DIMENSIONS to the new one"
        )


def require_live(connection: Connection, embedder: Embedder) -> None:
    """Raises ConfigurationError when search reads the vectors of another model."""
    live = sql.live_model(connection)
    if live is not None and live.model != embedder.model:
        raise ConfigurationError(
            f"the settings name the model {embedder.model}, but search reads {live.model}: set"
            " EMBEDDING_PROVIDER, EMBEDDING_MODEL and EMBEDDING_DIMENSIONS back, or run"
            " `embedding-assets switch-model` to embed everything with the new model"
        )
