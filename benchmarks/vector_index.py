"""The vector index in parts: what it costs loading, and what search finds how quickly meanwhile."""

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import DIMENSIONS, ROOT, Figure, Installation, installation
from benchmarks.vectors import Population, Vectors, nearest
from embedding_assets.engine import vector_index
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.vector_index import Builder, Policy
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets.migrations import migrate
from embedding_assets.search.search import nearest_chunks
from embedding_assets.settings import Settings
from embedding_assets.wiring import index_builder, index_policy

MODEL = "bench/model/1536"
SIZE = 100_000
BLOCK = 20_000
QUERIES = 200
K = 10
WITHOUT = "without_index"  # a second database, for comparison
SLOWEST_LOADING = 0.7
LEAST_RECALL = 0.95
LONGEST_SEARCH_MS = 50.0
LOADED_AT_ONCE = 500
# A run publishes some 1,500 chunks a second here (see throughput); a restore may be quicker.
RATES = {"a run loads 1,500 a second": 1_500, "loading at full speed": 1e9}

# A chunk for each vector, as a publication would write it.
PUBLISH = """
INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text, content_hash, token_count,
                               speakers, first_position, last_position)
SELECT 'recording-' || to_char(id / 50, 'FM0000000'), mod(id, 50), 'what was said ' || id,
       content_hash, 300, '{Ann,Bo}', 0, 1
FROM chunk_embeddings WHERE id > %s
"""


def measure(size: int = SIZE) -> list[Figure]:
    """All figures of this module."""
    with installation() as there:
        there.server.ensure_database(WITHOUT)
        migrate(there.server.url(WITHOUT))
        rows = np.concatenate(list(Population(DIMENSIONS).in_batches(size)))
        queries = Population(DIMENSIONS, seed=1).vectors(size + QUERIES)[-QUERIES:]
        figures = _loading(there, rows)
        figures += _searching(there, rows, queries)
    return figures


def _loading(there: Installation, rows: Vectors) -> list[Figure]:
    """Blocks of rows by turns into a database whose index is kept, and one that has none."""
    pause = there.home / "pause"
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    figures = []
    with (
        Database(there.url) as kept,
        Database(there.server.url(WITHOUT)) as plain,
        _maintenance(there, pause),
    ):
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            seconds["with"].append(_load(kept, block, start))
            pause.touch()
            while (there.home / "building").exists():
                time.sleep(0.1)
            seconds["without"].append(_load(plain, block, start))
            pause.unlink()
            loaded = start + len(block)
            ratio = sum(seconds["without"]) / sum(seconds["with"])
            figures.append(
                Figure(
                    f"loading {loaded:,} vectors, index kept in the background",
                    loaded / sum(seconds["with"]),
                    "vectors/s",
                    ratio,
                    "without any index",
                    ">= 0.70",
                    ratio >= SLOWEST_LOADING,
                )
            )
        slowest = min(a / b for a, b in zip(seconds["without"], seconds["with"], strict=True))
        figures.append(
            Figure("the slowest block of them", slowest, "", slowest, "without any index")
        )
    return figures


def _searching(there: Installation, rows: Vectors, queries: Vectors) -> list[Figure]:
    """Idle, once the index has caught up; then beside a load and the index's maintenance."""
    hashes = [_hash(number) for number in range(len(rows))]
    truth = [{hashes[n] for n in each} for each in nearest(rows, queries, K)]
    figures = []
    settings = Settings()
    with Database(there.url) as database:
        builder = Builder(
            there.url, memory=settings.index_build_memory, workers=settings.index_build_workers
        )
        while (part := vector_index.begin(database, index_policy(settings))) is not None:
            builder.build(database, part)
        with database.transaction() as connection:
            by_place = {
                (row.recording_id, row.chunk_index): bytes(row.content_hash)
                for row in connection.execute(
                    "SELECT recording_id, chunk_index, content_hash FROM transcript_chunks"
                )
            }
            parts = list(sql.sealed_parts(connection, model=MODEL))
        outside = len(rows) - sum(part.rows for part in parts)
        at = f"{len(rows):,} chunks, {len(parts)} parts, {outside:,} outside"
        figures += _searches(database, f"idle, {at}", queries, truth, by_place)
        for name, rate in RATES.items():
            with _maintenance(there, there.home / "pause"), _process(there, "load", str(rate)):
                time.sleep(2)
                figures += _searches(database, f"while {name}", queries, None, by_place)
        found = _found_at_once(database)
        figures.append(
            Figure(
                "chunks found right after publication", found, "of 1", aim="1", reached=found == 1
            )
        )
    return figures


def _searches(
    database: Database,
    at: str,
    queries: Vectors,
    truth: list[set[bytes]] | None,
    by_place: dict[tuple[str, int], bytes],
) -> list[Figure]:
    milliseconds: list[float] = []
    right = 0
    for number, query in enumerate(queries):
        started = time.monotonic()
        with database.transaction() as connection:
            rows = nearest_chunks(connection, query, K)
        milliseconds.append((time.monotonic() - started) * 1000)
        if truth is not None:
            found = {by_place[row.recording_id, row.chunk_index] for row in rows}
            right += len(found & truth[number])
    p50, p95 = np.percentile(milliseconds, [50, 95])
    figures = [
        Figure(f"search {at}, p50", float(p50), "ms"),
        Figure(
            f"search {at}, p95",
            float(p95),
            "ms",
            aim="< 50",
            reached=bool(p95 < LONGEST_SEARCH_MS),
        ),
    ]
    if truth is not None:
        recall = right / (K * len(queries))
        figures.append(
            Figure(
                f"search {at}, recall@{K}",
                recall,
                "",
                recall,
                "exact search",
                ">= 0.95",
                recall >= LEAST_RECALL,
            )
        )
    return figures


def _found_at_once(database: Database, tries: int = 50) -> float:
    """The share of new chunks that are their own vector's first hit in the very next search."""
    found = 0
    for number, vector in enumerate(Population(DIMENSIONS, seed=99).vectors(tries)):
        _load(database, vector[None, :], 10**9 + number)
        with database.transaction() as connection:
            (best,) = nearest_chunks(connection, vector, 1)
        found += best.similarity > 0.9999
    return found / tries


def _hash(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def _load(database: Database, block: Vectors, first: int) -> float:
    """Stores vectors as a run does, then publishes them; gives the seconds of the first."""
    with database.transaction() as connection:
        sql.add_model(connection, model=MODEL, dimensions=DIMENSIONS)
        before = int(sql.last_vector_id(connection))
    rows = [VectorRow(_hash(first + n), vector, 300) for n, vector in enumerate(block)]
    started = time.monotonic()
    store_vectors(database, MODEL, rows, InsertBatch(50))
    seconds = time.monotonic() - started
    with database.transaction() as connection:
        connection.execute(PUBLISH, [before])
    return seconds


@contextlib.contextmanager
def _maintenance(there: Installation, pause: Path) -> Iterator[None]:
    with _process(there, "maintain", str(pause)):
        yield


@contextlib.contextmanager
def _process(there: Installation, *arguments: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.vector_index", *arguments],
        env=there.environment,
        cwd=ROOT,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def maintain(pause: str) -> None:
    """Seals and merges until it is ended; not while the file `pause` is there."""
    settings = Settings()
    policy: Policy = index_policy(settings)
    builder: Builder = index_builder(settings)
    building = Path(pause).with_name("building")
    with Database(builder.url) as database:
        while True:
            part = None if Path(pause).exists() else vector_index.begin(database, policy)
            if part is None:
                time.sleep(0.2)
                continue
            building.touch()
            started = time.monotonic()
            try:
                builder.build(database, part)
            finally:
                building.unlink()
            # The schedule leaves minutes between two runs, in which this load would be over.
            time.sleep(time.monotonic() - started)


def load(url: str, rate: float) -> None:
    """Loads and publishes so many vectors a second, as far as it can, until it is ended."""
    population = Population(DIMENSIONS, seed=2)
    first = 10**8
    with Database(url) as database:
        while True:
            started = time.monotonic()
            _load(database, population.vectors(LOADED_AT_ONCE), first)
            first += LOADED_AT_ONCE
            time.sleep(max(0.0, LOADED_AT_ONCE / rate - (time.monotonic() - started)))


if __name__ == "__main__":
    if sys.argv[1] == "maintain":
        maintain(sys.argv[2])
    elif sys.argv[1] == "load":
        load(index_builder(Settings()).url, float(sys.argv[2]))
