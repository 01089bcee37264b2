"""Writes any number of chunks made of the shared meetings, in the state that publications leave."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from benchmarks.measuring import ROOT, Figure, Installation
from benchmarks.retrieval import RESULTS, Meeting, Question, Vectors, load
from benchmarks.similar import Mixed, Similar, digest, distances
from embedding_assets.engine.database import Database, sql
from embedding_assets.search.frequencies import count_words
from embedding_assets.settings import Settings
from embedding_assets.wiring import chunk_settings

DATA = ROOT.parent / "shared" / "data"
A_RECORDING = 10  # chunks
REAL = 3_000  # chunks that the others are made of; embedding them takes minutes, once
DIMENSIONS = 384
MODEL = f"openai/text-embedding-3-small/{DIMENSIONS}"  # as the loopback API answers beside searches
AT_ONCE = 2_000  # recordings
_LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)  # as a sweep looks at vectors that are a day old
PEOPLE = 300
QUESTIONS = 300  # whose exact answers are known
K = 10

BEFORE = """
SET session_replication_role = replica; -- the queue's rows are written below, not by triggers
CREATE UNLOGGED TABLE quarters (chunk integer PRIMARY KEY, words tsvector[]);
CREATE UNLOGGED TABLE mixes (recording_id text, chunk_index integer, own integer, other integer,
                             mask smallint);
"""
CALLS = """
INSERT INTO fathom_calls (recording_id, title, recorded_at, duration, source_platform,
                          recorded_by_email, user_id)
SELECT 'call-' || to_char(n, 'FM0000000'), 'Call ' || mod(n, 997) || ' of team ' || mod(n, 41),
       timestamptz '2021-01-01' + n * interval '20 minutes', 3000,
       (ARRAY['fathom', 'zoom', 'meet'])[1 + mod(n, 3)],
       'person' || mod(n, %(people)s) || '@example.com', 'user' || mod(n, %(people)s)
FROM generate_series(0, %(last)s - 1) AS n
"""
WORDS = """
INSERT INTO chunk_words (language, recording_id, chunk_index, words)
SELECT 'english', recording_id, chunk_index, {}
FROM mixes JOIN quarters AS own ON own.chunk = mixes.own
JOIN quarters AS other ON other.chunk = mixes.other
ORDER BY recording_id, chunk_index
"""
# Each quarter's words once; concatenation moves the positions on, as parsing the whole would.
QUARTER = "CASE WHEN mask & {bit} > 0 THEN other.words[{place}] ELSE own.words[{place}] END"
PUBLISHED = """
INSERT INTO published_recordings (recording_id, title, recorded_at, duration, source_platform,
                                  user_id, cut_as, speaker_names, chunk_count)
SELECT calls.recording_id, calls.title, calls.recorded_at, calls.duration, calls.source_platform,
       calls.user_id, %(cut_as)s, search_names(array_agg(DISTINCT speaker)),
       count(DISTINCT chunk_index)
FROM fathom_calls AS calls JOIN transcript_chunks USING (recording_id)
CROSS JOIN unnest(speakers) AS speaker
GROUP BY calls.recording_id
"""
QUEUED = """
INSERT INTO embedding_queue (recording_id, status, transcript_version, chunk_count, token_count,
                             enqueued_at, started_at, completed_at, reconciled_at, next_attempt_at)
SELECT recording_id, 'completed', ({version}), chunk_count, 330 * chunk_count, ended, ended, ended,
       ended, ended
FROM (SELECT *, now() - interval '9 minutes' * row_number() OVER (ORDER BY recording_id DESC)
                AS ended
      FROM published_recordings) AS queued
"""
ATTEMPTS = """
INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, model, outcome, chunks,
                                embedded, requests, tokens, cost_usd, seconds, finished_at)
SELECT gen_random_uuid(), recording_id, 'run ' || chunk_count, 'standard', %(model)s, 'published',
       chunk_count, chunk_count, 1, token_count, 0.00002 * token_count, 1, completed_at
FROM embedding_queue
"""
CALLED = """
INSERT INTO call_people (recording_id, role, ordinal, email)
SELECT recording_id, CASE each WHEN 0 THEN 'recorded_by' ELSE 'invitee' END, greatest(each - 1, 0),
       'person' || mod(abs(hashtext(recording_id || each)), %(people)s) || '@example.com'
FROM fathom_calls CROSS JOIN generate_series(0, 3) AS each
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions with their vectors, and the best chunks by comparing with every vector."""

    questions: Sequence[Question]
    vectors: NDArray[np.float32]
    hashes: list[set[bytes]]


def real() -> tuple[list[Question], Similar, Vectors]:
    """The questions, and what chunks are made of; vectors are kept on disk."""
    questions, meetings = load(DATA, chunk_settings(Settings()))
    random.Random(0).shuffle(meetings)
    drawn: list[Meeting] = []
    while sum(len(meeting.chunks) for meeting in drawn) < REAL:
        drawn.append(meetings[len(drawn)])
    vectors = Vectors(RESULTS / "minilm-vectors.npz")
    vectors.fill([question.text for question in questions])
    vectors.fill(each.text for meeting in drawn for each in meeting.chunks)
    return questions, Similar(drawn, vectors), vectors


def fill(there: Installation, chunks: int) -> tuple[Asked, list[Figure]]:
    """Writes everything but the vector index; gives the questions with their exact answers."""
    questions, similar, vectors = real()
    random.Random(1).shuffle(questions)
    asked = questions[:QUESTIONS]
    queries = np.stack([vectors[question.text] for question in asked])
    recordings = chunks // A_RECORDING
    found = list(_likeness(similar))
    started = time.monotonic()
    with there.connect() as connection:
        register_vector(connection)
        connection.execute(BEFORE)
        connection.execute(
            "INSERT INTO embedding_models (model, dimensions, is_live) VALUES (%s, %s, true)",
            [MODEL, DIMENSIONS],
        )
        words_index = _without_words_index(connection)
        _copy_quarters(connection, similar)
        connection.execute(CALLS, {"people": PEOPLE, "last": recordings})
        nearest = _Nearest(queries)
        known: set[bytes] = set()
        for first in range(0, recordings, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, recordings))
            _copy_recordings(connection, similar, numbers, known, nearest)
        _write_the_rest(connection, words_index)
    with Database(there.url) as database:
        count_words(database)
    with there.connect() as connection:
        connection.execute("VACUUM ANALYZE")
    found.append(Figure(f"writing {chunks:,} chunks in bulk", time.monotonic() - started, "s"))
    return Asked(asked, queries, [set(each) for each in nearest.hashes]), found


def _likeness(similar: Similar) -> Iterator[Figure]:
    """How far neighbours are among the real chunks, and among as many made-up ones."""
    made = similar.mixed(len(similar.real) // A_RECORDING, A_RECORDING, seed=10**6).vectors
    theirs, ours = distances(similar.real), distances(made)
    for rank, quartiles in ours.items():
        name = f"cosine distance to neighbour {rank} of {len(made):,}, median"
        real_one = float(theirs[rank][1])
        yield Figure(name, float(quartiles[1]), "", float(quartiles[1]) / real_one, "real chunks")


class _Nearest:
    """The nearest of all vectors that went by, for each question."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self.queries = queries
        self.alike = np.full((len(queries), K), -2, np.float32)
        self.hashes = np.empty((len(queries), K), object)

    def see(self, vectors: NDArray[np.float32], hashes: Sequence[bytes]) -> None:
        alike = np.concatenate([self.alike, self.queries @ vectors.T], axis=1)
        named = np.array(hashes, object)
        best = np.argpartition(-alike, K, axis=1)[:, :K]
        for row, places in enumerate(best):
            both = np.concatenate([self.hashes[row], named])
            self.hashes[row] = both[places]
        self.alike = np.take_along_axis(alike, best, axis=1)


def _without_words_index(connection: psycopg.Connection[Any]) -> str:
    """Drops the index on words, which is built quicker at the end; gives what makes it again."""
    row = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes"
        " WHERE tablename = 'chunk_words_english' AND indexdef LIKE '%gin%'"
    ).fetchone()
    assert row is not None
    connection.execute(f"DROP INDEX {row[0]}")  # type: ignore[call-overload]
    return str(row[1])


def _copy_quarters(connection: psycopg.Connection[Any], similar: Similar) -> None:
    for number, quarters in enumerate(similar.quarters):
        connection.execute(
            "INSERT INTO quarters SELECT %s, array_agg(to_tsvector('english',"
            " translate(said, '<>', '  ')) ORDER BY place)"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS each (said, place)",
            [number, quarters],
        )


def _copy_recordings(
    connection: psycopg.Connection[Any],
    similar: Similar,
    numbers: range,
    known: set[bytes],
    nearest: _Nearest,
) -> None:
    """Transcripts, chunks and vectors of the recordings with these numbers."""
    first = numbers.start
    mixed = similar.mixed(len(numbers), A_RECORDING, seed=first)
    texts, hashes = [], []
    for number, (own, other, mask) in enumerate(_rows(mixed)):
        text = similar.text(own, other, mask)
        content_hash = digest(text)
        if content_hash in known:  # chosen alike before
            text = f"{text} {first * A_RECORDING + number}"
            content_hash = digest(text)
        known.add(content_hash)
        texts.append(text)
        hashes.append(content_hash)
    nearest.see(mixed.vectors, hashes)
    named = [f"call-{first + n // A_RECORDING:07}" for n in range(len(texts))]
    people = [f"Person {(first + n // A_RECORDING) * 7919 % PEOPLE}" for n in range(len(texts))]
    _copy(
        connection,
        "fathom_transcripts (recording_id, position, speaker_name, start_seconds, text)",
        "text int4 text float8 text",
        (
            (named[n], n % A_RECORDING, people[n], 90.0 * (n % A_RECORDING), text)
            for n, text in enumerate(texts)
        ),
    )
    _copy(
        connection,
        "transcript_chunks (recording_id, chunk_index, chunk_text, content_hash, token_count,"
        " speakers, start_seconds, end_seconds, first_position, last_position, repeated,"
        " turn_offsets, turn_positions, turn_seconds, turn_speakers, call_title, user_id)",
        "text int4 text bytea int4 text[] float8 float8 int4 int4 int4"
        " int4[] int4[] float4[] int4[] text text",
        (
            (named[n], n % A_RECORDING, text, hashes[n], 330, [people[n]], 90.0 * (n % A_RECORDING),
             90.0 * (n % A_RECORDING) + 90, n % A_RECORDING, n % A_RECORDING, 0, [0],
             [n % A_RECORDING], [90.0 * (n % A_RECORDING)], [1], "A call", None)
            for n, text in enumerate(texts)
        ),
    )  # fmt: skip
    _copy(
        connection,
        "chunk_embeddings (model, content_hash, embedding, token_count, created_at)",
        "text bytea vector int4 timestamptz",
        ((MODEL, hashes[n], vector, 330, _LONG_AGO) for n, vector in enumerate(mixed.vectors)),
    )
    _copy(
        connection,
        "mixes (recording_id, chunk_index, own, other, mask)",
        "text int4 int4 int4 int2",
        ((named[n], n % A_RECORDING, *row) for n, row in enumerate(_rows(mixed))),
    )


def _rows(mixed: Mixed) -> Iterator[tuple[int, int, int]]:
    return zip(mixed.own.tolist(), mixed.other.tolist(), mixed.mask.tolist(), strict=True)


def _copy(
    connection: psycopg.Connection[Any], into: str, types: str, rows: Iterator[tuple[Any, ...]]
) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(
            f"COPY {into} FROM STDIN (FORMAT BINARY)"  # type: ignore[arg-type]
        ) as copy,
    ):
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)


def _write_the_rest(connection: psycopg.Connection[Any], words_index: str) -> None:
    quarters = (QUARTER.format(bit=1 << n, place=n + 1) for n in range(4))
    words = WORDS.format(" || ".join(quarters))
    version = sql.transcript_version.sql.rstrip("; \n").replace(
        "%(recording_id)s", "queued.recording_id"
    )
    cut_as = chunk_settings(Settings()).name
    statements: list[tuple[str, dict[str, Any] | None]] = [
        (words, None),
        (f"{words_index}", None),
        ("DROP TABLE quarters, mixes", None),
        ("ANALYZE", None),
        (PUBLISHED, {"cut_as": cut_as}),
        (QUEUED.format(version=version), None),
        (ATTEMPTS, {"model": MODEL}),
        (CALLED, {"people": PEOPLE}),
        ("SELECT derive_all_readers()", None),
        ("RESET session_replication_role", None),
    ]
    for statement, values in statements:
        connection.execute(statement, values)  # type: ignore[call-overload]
