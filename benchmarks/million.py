"""One installation with a million chunks of a hundred thousand recordings; an hour and more.

    python -m benchmarks --only million
    MILLION_CHUNKS=50000 python -m benchmarks --only million

The chunks are made of the shared meetings' sentences, with vectors like theirs (see similar.py);
they are written in bulk, in the state that publications leave. The questions are people's, and
their embedding is not part of the times. Beside the time of each search stands the time that its
server process computed, which other programs on the machine do not change.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
from pgvector.psycopg import register_vector

from benchmarks.bulk import DATA, DIMENSIONS, Asked, K, fill
from benchmarks.measuring import ROOT, Figure, Installation, installation, loopback_api
from benchmarks.search_latency import MODES, keep_indexed
from embedding_assets.engine import queue, vector_index
from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Database
from embedding_assets.engine.sweeping import sweep
from embedding_assets.engine.vector_index import Builder, Policy
from embedding_assets.health.integrity import inspect
from embedding_assets.health.numbers import figures as health_figures
from embedding_assets.health.system import health_of
from embedding_assets.search.frequencies import count_words
from embedding_assets.settings import Settings

CHUNKS = int(os.environ.get("MILLION_CHUNKS", "1000000"))
CANDIDATES = 100  # as a search takes
LEAST_RECALL = 0.95
SMALL_PART = 0.025  # of all chunks; four of them are merged
LOADED = 4_000  # recordings for the worker beside searches
SECONDS = 60  # of searches beside it
TICK = 1.0  # seconds, the aim for what a tick or a page does
HYBRID_MS = 300.0  # the aim for 95 of 100 hybrid searches while idle

TABLES = (
    "chunk_embeddings", "transcript_chunks", "chunk_words", "published_recordings",
    "search_lexemes", "fathom_transcripts", "fathom_calls", "embedding_queue",
    "embedding_attempts", "call_readers",
)  # fmt: skip


def measure() -> list[Figure]:
    """All figures of this module."""
    if not DATA.exists():
        return [Figure(f"not measured: the meetings are not in {DATA}", None, "")]
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        asked, found = fill(there, CHUNKS)
        return [*found, *index_figures(there), *figures(there, asked)]


# The vector index.


def index_figures(there: Installation) -> list[Figure]:
    """Builds large parts, then four small ones, which then become one."""
    found, chunks = [], there.count("chunk_embeddings")
    large, small = int(0.3 * chunks), int(SMALL_PART * chunks)
    with Database(there.url) as database:
        settings = Settings()
        memory, workers = settings.index_build_memory, settings.index_build_workers
        builder = Builder(there.url, memory=memory, workers=workers)
        for policy in (Policy(large, largest=large), Policy(small, largest=small), Policy(chunks)):
            while (part := vector_index.begin(database, policy)) is not None:
                built = builder.build(database, part)
                what = (
                    f"merging {len(built.replaced)} parts" if built.replaced else "building a part"
                )
                each = built.bytes / built.rows
                found.append(Figure(f"{what} of {built.rows:,} vectors", built.seconds, "s"))
                found.append(Figure(f"{what} of {built.rows:,}: size", each, "bytes/vector"))
    return found


# What is measured then.


def figures(there: Installation, asked: Asked) -> list[Figure]:
    """Sizes, searches, and what ticks and pages do."""
    found = [*_sizes(there), *_recall(there, asked), *_searches(there, asked, "idle")]
    found += _works(there)
    there.load(LOADED, long=LOADED // 7)
    with _worker(there), meanwhile(lambda ended: keep_indexed(there, ended)):
        found += _searches(there, asked, "while a worker loads", SECONDS)
    return found


def _sizes(there: Installation) -> Iterator[Figure]:
    with there.connect() as connection:
        for table in TABLES:
            row = connection.execute(
                "SELECT sum(pg_relation_size(each)), sum(pg_table_size(each)"
                " - pg_relation_size(each)), sum(pg_indexes_size(each)), count(*)"
                " FROM (SELECT %s::regclass AS each"
                " UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass) AS tables",
                [table, table],
            ).fetchone()
            assert row is not None
            for what, size in zip(("rows", "out of line", "indexes"), row, strict=False):
                yield Figure(f"size of {table}, {what}", float(size) / 2**20, "MiB")


def _recall(there: Installation, asked: Asked) -> Iterator[Figure]:
    right = 0
    with Database(there.url) as database, database.transaction() as connection:
        for vector, exact in zip(asked.vectors, asked.hashes, strict=True):
            rows = connection.execute(
                "SELECT content_hash FROM nearest_chunk_vectors(%s, %s)", [vector, CANDIDATES]
            ).fetchmany(K)
            right += len(exact & {bytes(row.content_hash) for row in rows})
    recall = right / (K * len(asked.hashes))
    yield Figure(
        f"recall@{K} of {len(asked.hashes)} questions", recall, "", recall, "exact search",
        ">= 0.95", recall >= LEAST_RECALL,
    )  # fmt: skip


def _searches(
    there: Installation, asked: Asked, when: str, seconds: float = 0.0
) -> Iterator[Figure]:
    """Each mode in turn, at least once for each question, and for so many seconds."""
    took: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    ends = time.monotonic() + seconds
    with there.connect() as connection:
        register_vector(connection)
        process = psutil.Process(connection.info.backend_pid)
        for warm in (True, False):
            for number, question in enumerate(asked.questions):
                if not warm and seconds and time.monotonic() > ends:
                    break
                values = [question.text, asked.vectors[number]]
                for mode in MODES:
                    query = "SELECT * FROM search_transcript_chunks(%s, %s, %s)"
                    spent = _timed(
                        process,
                        lambda q=query, v=[*values, mode]: connection.execute(q, v).fetchall(),
                    )
                    if not warm:
                        took[mode].append(spent)
    for mode, spent in took.items():
        wall, cpu = np.percentile(np.array(spent) * 1000, [50, 95], axis=0).T
        is_aimed = mode == "hybrid" and when == "idle"
        aim = {"aim": "< 300", "reached": bool(wall[1] < HYBRID_MS)} if is_aimed else {}
        yield Figure(f"{mode} search {when}, p50", wall[0], "ms")
        yield Figure(f"{mode} search {when}, p95", wall[1], "ms", **aim)
        yield Figure(f"{mode} search {when}, p50 of the server's CPU", cpu[0], "ms")
        yield Figure(f"{mode} search {when}, p95 of the server's CPU", cpu[1], "ms")


def _timed(process: psutil.Process, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds that the server process computed."""
    before, started = _cpu(process), time.monotonic()
    work()
    return time.monotonic() - started, _cpu(process) - before


def _cpu(process: psutil.Process) -> float:
    """Linux counts in hundredths, which is coarse for one search; its scheduler in nanoseconds."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text("ascii").split()[0]) / 1e9
    except OSError:
        return float(sum(process.cpu_times()[:2]))


def _works(there: Installation) -> Iterator[Figure]:
    """What ticks, pages and jobs do, the second time of two."""
    settings = Settings(embedding_provider="openai")
    policy = Policy()
    with Database(there.url) as database:
        works: dict[str, Callable[[], object]] = {
            "health numbers": lambda: health_figures(database, timedelta(hours=1)),
            "health and its judgement": lambda: health_of(settings, database),
            "what is due": lambda: database.retrying(queue.work_waiting),
            "looking for parts to build": lambda: database.retrying(
                lambda c: vector_index.waiting(c, policy)
            ),
            "finding what change tracking missed": lambda: queue.reconcile(database),
            "counting words when nothing is new": lambda: count_words(database),
        }
        for name, work in works.items():
            work()
            started = time.monotonic()
            work()
            seconds = time.monotonic() - started
            yield Figure(name, seconds, "s", aim="< 1", reached=seconds < TICK)
        jobs: dict[str, Callable[[], object]] = {
            "one inspection": lambda: inspect(database),
            "a sweep of all vectors": lambda: sweep(database),
        }
        for name, work in jobs.items():
            started = time.monotonic()
            work()
            yield Figure(name, time.monotonic() - started, "s")
    with there.connect() as connection:
        started = time.monotonic()
        connection.execute("VACUUM")
        yield Figure("vacuum of all tables", time.monotonic() - started, "s")


@contextmanager
def _worker(there: Installation) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.throughput", "worker"], env=there.environment, cwd=ROOT
    )
    try:
        time.sleep(5)
        yield
        if process.poll() is not None:
            raise RuntimeError("the worker ended before the searches: raise LOADED")
    finally:
        process.terminate()
        process.wait(timeout=60)
