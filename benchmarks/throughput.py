"""From stored transcripts to published chunks: against the limit of COPY, at two latencies.

The limit: the same rows, already chunked and embedded, written by binary COPY into the same
tables. Then two workers on one queue beside one, with an API that takes longer. Everything by
turns, some times, so that what else the machine does meets all of them; figures are medians.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, LiteralString

import psycopg
from pgvector.psycopg import register_vector

from benchmarks.measuring import (
    Figure,
    Installation,
    Spent,
    at_least,
    installation,
    loopback_api,
    measured,
)
from embedding_assets.server.connections import application_url
from embedding_assets.settings import Settings

RECORDINGS = 200
LONG = 29  # of them, over three hours: 10,000 chunks altogether
LATENCIES_MS = (0, 100)
ROUNDS = 3
SLOW_MS = 200  # for two workers
ROUNDS_OF_TWO = 2
LEAST_OF_COPY = 0.55  # the engine, the aim
LEAST_OF_ONE_WORKER = 1.8  # two workers, the aim

EMPTY = """
TRUNCATE transcript_chunks, chunk_words, published_recordings, search_lexemes, chunk_embeddings,
    embedding_attempts;
UPDATE search_languages SET counted_chunks = 0, counted_until = 0, mean_words = 0;
UPDATE embedding_queue SET status = 'pending', completed_at = NULL, claimed_by = NULL,
    lease_expires_at = NULL, next_attempt_at = now();
VACUUM FULL embedding_queue;
"""


def measure() -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    with installation() as there:
        there.load(RECORDINGS, long=LONG)
        for latency in LATENCIES_MS:
            with loopback_api(latency) as settings:
                there.environment.update(settings)
                figures += _beside_copy(there, f"{latency} ms")
        with loopback_api(SLOW_MS) as settings:
            there.environment.update(settings)
            figures += _two_workers(there, f"{SLOW_MS} ms")
    return figures


MODULE = "benchmarks.throughput"
ENGINE = "engine alone"
# A command in two processes at once; what they take is counted together.
TWICE = ("sh", "-c", '"$@" & first=$!; "$@" && wait $first', "sh")
RUNS: dict[str, tuple[str, ...]] = {
    ENGINE: (sys.executable, "-m", "benchmarks.worker"),
    "Dagster run": (str(Path(sys.executable).with_name("embedding-assets")), "run"),
}


def _beside_copy(there: Installation, at: str) -> list[Figure]:
    runs: dict[str, list[Spent]] = defaultdict(list)
    copies = []
    for _ in range(ROUNDS):
        for name, command in RUNS.items():
            empty(there)
            runs[name].append(measured(command, there.environment))
        copies.append(float(there.python("-m", MODULE).output))
    chunks = there.count("transcript_chunks")
    limit = chunks / median(copies)
    figures = [Figure(f"binary COPY, {at}", limit, "chunks/s", note=f"{chunks:,} chunks")]
    for name, spent in runs.items():
        rate = chunks / median(each.wall for each in spent)
        by_cpu = chunks / median(each.cpu for each in spent)
        peak = median(each.peak for each in spent) / 2**20
        aim = at_least(LEAST_OF_COPY if name == ENGINE else None, rate / limit)
        figures += [
            Figure(f"{name}, {at}", rate, "chunks/s", rate / limit, "COPY", **aim),
            Figure(f"{name}, {at}: client CPU", by_cpu, "chunks/CPU s"),
            Figure(f"{name}, {at}: peak memory", peak, "MiB"),
        ]
    return figures


def _two_workers(there: Installation, at: str) -> list[Figure]:
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS_OF_TWO):
        for name, command in RUNS.items():
            for workers, twice in (("one", ()), ("two", TWICE)):
                empty(there)
                spent[name, workers].append(measured([*twice, *command], there.environment).wall)
    chunks = there.count("transcript_chunks")
    figures = []
    for name in RUNS:
        one, two = (chunks / median(spent[name, workers]) for workers in ("one", "two"))
        aim = at_least(LEAST_OF_ONE_WORKER, two / one)
        figures.append(
            Figure(f"two workers, {name}, {at}", two, "chunks/s", two / one, "one", **aim)
        )
    return figures


def empty(there: Installation) -> None:
    """Makes everything due again, as if nothing had been embedded."""
    with there.connect() as connection:
        for statement in filter(str.strip, EMPTY.split(";")):
            connection.execute(statement)
    settle(there.url)


def settle(url: str) -> None:
    """Leaves no earlier work of the server's to be done while somebody is measured."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def copy() -> None:
    """Prints the seconds that COPY takes for the rows that are there."""
    with psycopg.connect(application_url(Settings()), autocommit=True) as connection:
        register_vector(connection)
        chunks = _read(connection, "SELECT * FROM transcript_chunks")
        vectors = _read(
            connection, "SELECT model, content_hash, embedding, token_count FROM chunk_embeddings"
        )
        connection.execute("TRUNCATE transcript_chunks, chunk_embeddings, chunk_words")
        started = time.monotonic()
        _copy(
            connection,
            "COPY chunk_embeddings (model, content_hash, embedding, token_count)"
            " FROM STDIN (FORMAT BINARY)",
            *vectors,
        )
        _copy(connection, "COPY transcript_chunks FROM STDIN (FORMAT BINARY)", *chunks)
        # What publishing writes beside: words, and a row for each recording.
        connection.execute(
            "INSERT INTO chunk_words (language, recording_id, chunk_index, words)"
            " SELECT 'english', recording_id, chunk_index, to_tsvector('english', chunk_text)"
            " FROM transcript_chunks"
        )
        print(time.monotonic() - started)


def _read(connection: psycopg.Connection[Any], query: LiteralString) -> tuple[list[int], list[Any]]:
    """The types of the columns, and the rows."""
    cursor = connection.execute(query, binary=True)
    return [column.type_code for column in cursor.description or ()], cursor.fetchall()


def _copy(
    connection: psycopg.Connection[Any], statement: LiteralString, types: list[int], rows: list[Any]
) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


if __name__ == "__main__":
    copy()
