"""From stored transcripts to published chunks: against the limit of COPY, at two latencies.

The limit: the same rows, already chunked and embedded, written by binary COPY into the same
tables in the same run.
"""

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from pgvector.psycopg import register_vector

from benchmarks.measuring import Figure, Installation, Spent, installation, loopback_api
from embedding_assets.engine.in_flight import Lane
from embedding_assets.server.connections import application_url
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session

RECORDINGS = 200
LONG = 29  # of them, over three hours: 10,000 chunks altogether
LATENCIES_MS = (0, 100)

EMPTY = """
TRUNCATE transcript_chunks, chunk_words, published_recordings, search_lexemes, chunk_embeddings,
    embedding_attempts;
UPDATE search_languages SET counted_chunks = 0, counted_until = 0, mean_words = 0;
UPDATE embedding_queue SET status = 'pending', completed_at = NULL, claimed_by = NULL,
    lease_expires_at = NULL, next_attempt_at = now();
VACUUM FULL embedding_queue;
"""


def worker() -> None:
    """Embeds what is due with the engine alone, in this process."""
    run_id = f"benchmark {os.getpid()}"  # claims are a run's own
    with open_session(Settings(), run_id, lane=Lane.standard, insert_batch=None) as session:
        session.discover()
        for _ in session.due(timedelta(hours=1)):
            pass


def measure() -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    limit = 0.0
    with installation() as there:
        there.load(RECORDINGS, long=LONG)
        for latency in LATENCIES_MS:
            with loopback_api(latency) as settings:
                there.environment.update(settings)
                for name, run in RUNS.items():
                    _empty(there)
                    spent = run(there)
                    chunks = there.count("transcript_chunks")
                    if not limit:
                        limit = chunks / float(there.python("-m", MODULE, "copy").output)
                        figures.append(Figure("binary COPY of the same rows", limit, "chunks/s"))
                    figures += _figures(f"{name}, {latency} ms", chunks, spent, latency, limit)
    return figures


MODULE = "benchmarks.throughput"
RUNS: dict[str, Callable[[Installation], Spent]] = {
    "engine alone": lambda there: there.python("-m", MODULE, "worker"),
    "Dagster run": lambda there: there.command("run"),
}


def _figures(at: str, chunks: int, spent: Spent, latency: int, limit: float) -> list[Figure]:
    ratio = chunks / spent.wall / limit
    aim = {"aim": ">= 0.40", "reached": ratio >= 0.40} if latency == 0 else {}
    return [
        Figure(f"{at}: {chunks:,} chunks", chunks / spent.wall, "chunks/s", ratio, "COPY", **aim),
        Figure(f"{at}: client CPU", chunks / spent.cpu, "chunks/CPU s"),
        Figure(f"{at}: peak memory", spent.peak / 2**20, "MiB"),
    ]


def _empty(there: Installation) -> None:
    with there.connect() as connection:
        for statement in filter(str.strip, EMPTY.split(";")):
            connection.execute(statement)


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
    {"worker": worker, "copy": copy}[sys.argv[1]]()
