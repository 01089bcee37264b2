"""Fills a second model beside the live one, then switches search to it in one transaction."""

from collections.abc import Callable

from psycopg import Rollback

from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.packing import Input, Packer
from embedding_assets.engine.vectors import InsertBatch, store_vectors, vector_rows

PAGE = 200  # published texts looked up at once


def switch_model(
    database: Database,
    embedder: Embedder,
    insert_batch: InsertBatch,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Embeds every published text the model has no vector of, then makes the model live.

    Gives the number of texts embedded. Interrupted, it continues where it stopped; search reads
    the old model until the last moment.
    """
    database.retrying(
        lambda c: sql.add_model(c, model=embedder.model, dimensions=embedder.dimensions)
    )
    embedded = 0
    while not database.retrying(lambda c: _make_live(c, embedder.model)):
        embedded = _fill(database, embedder, insert_batch, embedded, progress)
    return embedded


def _fill(
    database: Database,
    embedder: Embedder,
    insert_batch: InsertBatch,
    embedded: int,
    progress: Callable[[int], None],
) -> int:
    """One pass over the published texts, in the order of their hash."""
    after = b""
    while True:
        with database.transaction() as connection:
            rows = list(
                sql.chunks_without_vector(connection, model=embedder.model, after=after, limit=PAGE)
            )
        if not rows:
            return embedded
        packer = Packer(embedder.limits)
        for row in rows:
            planned = embedder.planned_tokens(row.chunk_text)
            packer.add(Input(bytes(row.content_hash), row.chunk_text, planned))
        while inputs := packer.take(flush=True):
            answer = embedder.embed([item.text for item in inputs])
            store_vectors(database, embedder.model, vector_rows(inputs, answer), insert_batch)
            embedded += len(inputs)
            progress(embedded)
        after = bytes(rows[-1].content_hash)


def _make_live(connection: Connection, model: str) -> bool:
    """Switches, unless a text was published meanwhile that the model has no vector of."""
    # First the lock that publications share, then the count: what was being published is counted.
    is_whole = False
    with connection.transaction() as switch:
        sql.retire_live_model(connection)
        is_whole = not sql.count_chunks_without_vector(connection, model=model)
        if not is_whole:
            raise Rollback(switch)
        sql.make_model_live(connection, model=model)
    return is_whole
