"""What access costs a search, whether it is right for every reader, and what a worker pays.

2,000 calls of 25 chunks, 300 readers: most see some dozens of calls, thirty see one in a hundred,
some see a fifth. Texts are drawn from a vocabulary with the frequencies of speech, vectors too.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
import psycopg

from benchmarks.measuring import Figure, Installation, installation
from benchmarks.vectors import Population
from embedding_assets.engine.database import Database
from embedding_assets.search.access import AccessPolicy, turn_off, turn_on
from embedding_assets.search.frequencies import count_words

CALLS, CHUNKS, READERS, WORDS, DIMENSIONS = 2_000, 25, 300, 60, 384
QUESTIONS = 40
MODEL = "benchmark/drawn/384"
ROLE = "access_benchmark"
ADMIN = "boss@example.org"
MODES = ("keyword", "semantic", "hybrid")
AIM = 2.0


def measure() -> list[Figure]:
    """The figures, as ratios of the same searches without access."""
    with installation() as there:
        chance = random.Random(5)
        vocabulary = [f"word{n}" for n in range(8_000)]
        weights = list(accumulate(1 / (n + 10) for n in range(len(vocabulary))))
        vectors = np.concatenate(list(_vectors(CALLS * CHUNKS)))
        readers = _fill(there, chance, vocabulary, weights, vectors)
        asked = []
        for _ in range(QUESTIONS):
            question = " ".join(chance.choices(vocabulary[50:], k=4))
            asked.append((question, vectors[chance.randrange(len(vectors))]))
        with Database(there.url) as database, _as_role(there) as connection:
            return [
                *_times(database, connection, readers, asked),
                *_rightness(database, connection, readers, asked, vectors),
                _publishing(there),
            ]


def _vectors(number: int) -> Iterator[np.ndarray]:
    population = Population(DIMENSIONS)
    for start in range(0, number, 10_000):
        yield population.vectors(min(10_000, number - start)).astype(np.float32)


def _fill(
    there: Installation,
    chance: random.Random,
    vocabulary: list[str],
    weights: list[float],
    vectors: np.ndarray,
) -> dict[str, set[str]]:
    """Publishes the calls; gives the calls of each reader."""
    ids = [f"call{n}" for n in range(CALLS)]
    readers = {
        f"reader{n}@example.org": set(
            chance.sample(ids, CALLS // 100 if n % 10 == 0 else CALLS // 5 if n % 10 == 1 else 60)
        )
        for n in range(READERS)
    }
    with there.connect() as connection:
        connection.execute(
            "INSERT INTO embedding_models (model, dimensions, is_live) VALUES (%s, %s, true)",
            [MODEL, DIMENSIONS],
        )
        with connection.cursor().copy(
            "COPY transcript_chunks (recording_id, chunk_index, chunk_text, content_hash,"
            " token_count, speakers, first_position, last_position) FROM STDIN"
        ) as copy:
            for number in range(CALLS * CHUNKS):
                text = " ".join(chance.choices(vocabulary, cum_weights=weights, k=WORDS))
                digest = hashlib.sha256(f"{number}".encode()).digest()
                copy.write_row(
                    (ids[number // CHUNKS], number % CHUNKS, text, digest, WORDS, ["Ann"], 0, 1)
                )
        with connection.cursor().copy(
            "COPY chunk_embeddings (model, content_hash, embedding, token_count) FROM STDIN"
        ) as copy:
            for number, vector in enumerate(vectors):
                digest = hashlib.sha256(f"{number}".encode()).digest()
                copy.write_row((MODEL, digest, str(vector.tolist()), WORDS))
        connection.execute(
            "INSERT INTO chunk_words (language, recording_id, chunk_index, words)"
            " SELECT 'english', recording_id, chunk_index, to_tsvector('english', chunk_text)"
            " FROM transcript_chunks"
        )
        connection.execute(
            "INSERT INTO published_recordings (recording_id, title, chunk_count)"
            " SELECT recording_id, recording_id, count(*) FROM transcript_chunks GROUP BY 1"
        )
        connection.execute(
            "INSERT INTO fathom_calls (recording_id, title)"
            " SELECT recording_id, title FROM published_recordings"
        )
        with connection.cursor().copy(
            "COPY call_people (recording_id, role, ordinal, email, is_external) FROM STDIN"
        ) as copy:
            for number, (reader, calls) in enumerate(readers.items()):
                for recording_id in calls:
                    copy.write_row((recording_id, "invitee", number, reader, False))
        connection.execute("VACUUM ANALYZE")
    with Database(there.url) as database:
        count_words(database)
    return readers


def _as_role(there: Installation) -> psycopg.Connection[Any]:
    with there.connect() as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")  # type: ignore[arg-type]
        connection.execute(
            f"GRANT EXECUTE ON FUNCTION search_transcript_chunks TO {ROLE};"  # type: ignore[arg-type]
            f" GRANT SELECT ON transcript_chunks TO {ROLE}"
        )
    return psycopg.connect(there.url.replace("postgres@", f"{ROLE}@", 1), autocommit=True)


def _search(
    connection: psycopg.Connection[Any], reader: str, question: str, vector: Any, mode: str
) -> list[Any]:
    with connection.transaction():
        connection.execute("SELECT set_config('embedding_assets.reader', %s, true)", [reader])
        return connection.execute(
            "SELECT recording_id, chunk_index FROM search_transcript_chunks(%s, %s::vector, %s,"
            " '{}', 10, 10)",
            [question, json.dumps(vector.tolist()), mode],
        ).fetchall()


def _times(
    database: Database,
    connection: psycopg.Connection[Any],
    readers: dict[str, set[str]],
    asked: list[tuple[str, Any]],
) -> Iterator[Figure]:
    """Searches in turn with and without access, by readers of some calls and by one of all."""
    chosen = {"readers of some calls": list(readers)[:QUESTIONS], "an admin": [ADMIN] * QUESTIONS}
    policy = AccessPolicy(admins=(ADMIN,))
    spent: dict[tuple[str, str, bool], list[float]] = {}
    for is_on in (False, True, False, True):
        _ = turn_on(database, policy) if is_on else turn_off(database)
        for who, names in chosen.items():
            for mode in MODES:
                times = spent.setdefault((who, mode, is_on), [])
                for reader, (question, vector) in zip(names, asked, strict=True):
                    _search(connection, reader, question, vector, mode)  # warm
                    started = time.perf_counter()
                    _search(connection, reader, question, vector, mode)
                    times.append(time.perf_counter() - started)
    for who in chosen:
        for mode in MODES:
            without, under = (median(spent[who, mode, is_on]) * 1e3 for is_on in (False, True))
            ratio = under / without
            yield Figure(
                f"{mode} search of 50,000 chunks under access, {who}, median", under, "ms", ratio,
                f"without it, {without:.1f} ms", f"at most {AIM:g}", ratio <= AIM,
            )  # fmt: skip


def _rightness(
    database: Database,
    connection: psycopg.Connection[Any],
    readers: dict[str, set[str]],
    asked: list[tuple[str, Any]],
    vectors: np.ndarray,
) -> Iterator[Figure]:
    """Every reader against an oracle; then what one who sees a hundredth finds of the nearest."""
    turn_on(database, AccessPolicy())
    wrong = 0
    found = []
    for number, (reader, calls) in enumerate(readers.items()):
        question, vector = asked[number % len(asked)]
        for mode in ("hybrid", "semantic", "keyword"):
            hits = _search(connection, reader, question, vector, mode)
            wrong += sum(recording_id not in calls for recording_id, _ in hits)
            if mode == "semantic" and len(calls) == CALLS // 100:
                seen = [
                    int(c.removeprefix("call")) * CHUNKS + n for c in calls for n in range(CHUNKS)
                ]
                order = np.argsort(-(vectors[seen] @ vector), kind="stable")[:10]
                best = {seen[place] for place in order}
                got = {_place(call, n) for call, n in hits}
                found.append(len(best & got) / 10)
    yield Figure(
        f"hits of calls that the reader may not see, {READERS} readers in three modes", wrong,
        "hits", aim="0", reached=wrong == 0,
    )  # fmt: skip
    recall = float(np.mean(found))
    yield Figure(
        f"of the ten nearest chunks, found by readers who see 1 % ({len(found)} of them)",
        recall * 100, "%", aim="at least 99", reached=recall >= 0.99,
    )  # fmt: skip


def _place(recording_id: str, chunk_index: int) -> int:
    return int(recording_id.removeprefix("call")) * CHUNKS + chunk_index


def _publishing(there: Installation) -> Figure:
    """Storing the chunks of long calls by INSERT, as a policy lets it, and by COPY."""
    rows = [("x" * 1_500, hashlib.sha256(str(n).encode()).digest(), n) for n in range(500)]

    def insert(connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "INSERT INTO timed SELECT * FROM unnest(%s::text[], %s::bytea[], %s::int[])",
            [[row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]],
        )

    def copy(connection: psycopg.Connection[Any]) -> None:
        with connection.cursor().copy("COPY timed FROM STDIN (FORMAT BINARY)") as writer:
            writer.set_types(["text", "bytea", "int4"])
            for row in rows:
                writer.write_row(row)

    spent: dict[Callable[..., None], list[float]] = {insert: [], copy: []}
    with there.connect() as connection:
        connection.execute("CREATE TEMP TABLE timed (a text, b bytea, c int)")
        for _ in range(20):
            for store, times in spent.items():
                started = time.perf_counter()
                store(connection)
                times.append(time.perf_counter() - started)
    by_insert, by_copy = median(spent[insert]) * 1e3, median(spent[copy]) * 1e3
    return Figure(
        "storing 500 chunks by INSERT of arrays", by_insert, "ms", by_insert / by_copy,
        f"by COPY, {by_copy:.1f} ms",
    )  # fmt: skip
