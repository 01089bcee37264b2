import time

import numpy as np
import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.outcome import Result
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets_tests.calls import CHUNKING, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import LoopbackAPI

DIMENSIONS = 512
INDEXED = 3_000  # vectors in the index before: enough that one more costs milliseconds


def _random_rows(number: int, seed: int) -> list[VectorRow]:
    random = np.random.default_rng(seed)
    return [
        VectorRow(random.bytes(32), random.standard_normal(DIMENSIONS).astype(np.float32), 1)
        for _ in range(number)
    ]


def _seconds_of_a_50_row_insert(database: Database, model: str) -> float:
    """The quickest of a few, so that a busy machine only makes the timeout tighter."""
    quickest = float("inf")
    for seed in range(3):
        batch = InsertBatch(50)
        started = time.monotonic()
        store_vectors(database, model, _random_rows(50, 100 + seed), batch)
        quickest = min(quickest, time.monotonic() - started)
    return quickest


@pytest.mark.slow
def test_a_recording_completes_although_50_rows_pass_the_statement_timeout(
    database: Database, database_url: str
) -> None:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        embedder = embedder_of(api, dimensions=DIMENSIONS)
        store_vectors(database, embedder.model, _random_rows(INDEXED, 1), InsertBatch(1_000))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                f"CREATE INDEX ON chunk_embeddings USING hnsw ((embedding::vector({DIMENSIONS}))"
                " vector_cosine_ops) WITH (m = 32, ef_construction = 400)"
            )
        limit = _seconds_of_a_50_row_insert(database, embedder.model) / 3
        with database.transaction() as connection:
            add_call(connection, "a", talk("a", 900))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = "
                f"{max(1, round(limit * 1000))}', current_database()); END $$"
            )
        with Database(database_url) as limited:
            claims = Claims(limited, "run")
            run = EmbeddingRun(limited, embedder, CHUNKING, claims)
            outcomes = list(run.embed(claims.due()))
    assert [(o.result, o.error) for o in outcomes] == [(Result.PUBLISHED, None)]
    assert outcomes[0].figures.chunks > 100
    ((lane, smallest),) = rows(
        database, "SELECT lane, smallest_insert_batch FROM embedding_attempts"
    )
    assert lane == Lane.standard
    assert smallest < 50
    assert api.stats.sent_twice == []
