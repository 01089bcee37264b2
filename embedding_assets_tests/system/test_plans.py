"""The plans of the statements that run often: none reads a whole table."""

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.database import sql as engine
from embedding_assets.health.statements import sql as health
from embedding_assets.search import calls
from embedding_assets.search.search import Filters

CLAIM = uuid.UUID(int=1)
FILL = """
INSERT INTO fathom_calls (recording_id, title)
SELECT 'r' || n, 'A call' FROM generate_series(1, 20000) AS n;
INSERT INTO run_heartbeats (run_id) SELECT 'run ' || n FROM generate_series(1, 5000) AS n;
INSERT INTO fathom_transcripts (recording_id, position, text)
SELECT 'r' || n, p, 'text' FROM generate_series(1, 20000) AS n, generate_series(0, 2) AS p;
UPDATE embedding_queue
SET status = 'completed', completed_at = now(), transcript_version = 'x', chunk_count = 1,
    token_count = 1, next_attempt_at = now()
WHERE recording_id NOT LIKE '%7';
INSERT INTO transcript_chunks
    (recording_id, chunk_index, chunk_text, content_hash, token_count, speakers, first_position,
     last_position)
SELECT 'r' || n, p, 'text', sha256((n || ':' || p)::bytea), 1, '{}', 0, 1
FROM generate_series(1, 20000) AS n, generate_series(0, 2) AS p;
INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)
SELECT 'm', sha256((n || ':' || p)::bytea), '[1,2]', 1
FROM generate_series(1, 20000) AS n, generate_series(0, 2) AS p;
INSERT INTO chunk_words (language, recording_id, chunk_index, words)
SELECT 'english', recording_id, chunk_index,
       to_tsvector('english', 'text about w' || hashtext(recording_id) % 500)
FROM transcript_chunks;
INSERT INTO published_recordings (recording_id, title, recorded_at, source_platform, user_id,
                                  speaker_names, chunk_count)
SELECT 'r' || n, 'Title t' || n % 500, now() - n * interval '1 hour', 'p' || n % 500,
       'u' || n % 500, ARRAY['s' || n % 500], 3
FROM generate_series(1, 20000) AS n;
INSERT INTO search_lexemes
SELECT 'english', word, ndoc FROM ts_stat('SELECT words FROM chunk_words');
INSERT INTO search_lexemes SELECT 'english', 'x' || n, 1 FROM generate_series(1, 40000) AS n;
UPDATE search_languages SET counted_chunks = 60000, mean_words = 2;
INSERT INTO embedding_models (model, dimensions, is_live) VALUES ('m', 2, true);
INSERT INTO embedding_attempts
    (attempt_id, recording_id, run_id, lane, outcome, embedded, seconds, finished_at)
SELECT gen_random_uuid(), 'r' || n, 'run ' || n / 100, 'standard', 'published', 1, 1,
       now() - n * interval '1 minute'
FROM generate_series(1, 20000) AS n;
ANALYZE;
"""
HASHES = [b"x" * 32, b"y" * 32]
OFTEN: dict[str, dict[str, Any]] = {
    "fewest_crashes_due": {},
    "claim_due": {"run_id": "run", "lease": timedelta(minutes=5), "crashes": 0, "limit": 20},
    "fewest_crashes_of": {"recording_ids": ["r1", "r2"]},
    "claim_these": {
        "run_id": "run",
        "lease": timedelta(minutes=5),
        "recording_ids": ["r1", "r2"],
        "crashes": 0,
        "limit": 20,
    },
    "fewest_crashes_of_dead_letters": {"max_recoveries": 3},
    "expire_claims": {"dead_run": None, "run_id": "run", "max_attempts": 3, "error": "x"},
    "renew_leases": {"run_id": "run", "lease": timedelta(minutes=5)},
    "lock_claim": {"recording_id": "r1", "run_id": "run", "claim_id": CLAIM},
    "is_taken_for_dead": {"run_id": "run"},
    "note_unreleased": {"run_id": "run"},
    "held": {},
    "call": {"recording_id": "r1"},
    "segments": {"recording_id": "r1"},
    "transcript_version": {"recording_id": "r1"},
    "withdraw_chunks": {"recording_id": "r1"},
    "store_words": {"recording_id": "r1"},
    "stored_hashes": {"model": "m", "hashes": HASHES},
    "hold_vectors": {"model": "m", "hashes": HASHES},
    "least_recently_reconciled": {"limit": 500},
    "lock_unreferenced": {"after": 0, "until": 1000, "grace": timedelta(days=1)},
    "worst_dead_letters": {"limit": 10, "max_recoveries": 3},
    "longest_waiting": {"limit": 3},
    "stalest_claims": {"limit": 3},
    "runs_in_flight": {},
    "attempts_by_hour": {"since": datetime.now(UTC) - timedelta(days=1)},
    "attempts_since": {"since": datetime.now(UTC) - timedelta(hours=1)},
    "next_window": {"after": "r1", "recordings": 200, "chunks": 250},
    "look_at": {"recording_ids": ["r1", "r2"]},
    "waiting_of": {"recording_ids": ["r1", "r2"]},
    "drop_bad_vectors": {"recording_ids": ["r1", "r2"]},
}


@pytest.fixture(scope="module")
def filled(server: Any, migrated_template: str) -> Any:
    name = "plans"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
        with psycopg.connect(server.url(name), autocommit=True) as inside:
            inside.execute(FILL)
            # A separate statement: VACUUM does not run in a transaction.
            inside.execute("VACUUM (ANALYZE)")
        yield server.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("statement", OFTEN)
def test_what_runs_often_reads_no_whole_table(filled: str, statement: str) -> None:
    with Database(filled) as database, database.transaction() as connection:
        plan = _plan(connection, _statement(statement), OFTEN[statement])
    # There are a handful of models and of languages.
    for small in ("embedding_models", "search_languages"):
        plan = plan.replace(f"Seq Scan on {small}", "")
    assert "Seq Scan" not in plan, plan


def test_health_reads_the_queue_and_the_calls_and_no_larger_table(filled: str) -> None:
    with Database(filled) as database, database.transaction() as connection:
        parameters = {"max_attempts": 3, "max_recoveries": 3, "cut_as": "1/2/3"}
        plan = _plan(connection, health.health_numbers.sql, parameters)
    for table in ("embedding_attempts", "transcript_chunks", "chunk_embeddings"):
        assert f"Seq Scan on {table}" not in plan, plan


def test_an_inspection_finds_each_vector_by_both_columns_of_its_index(filled: str) -> None:
    with Database(filled) as database, database.transaction() as connection:
        plan = _plan(connection, health.look_at.sql, {"recording_ids": ["r1", "r2"]})
    assert re.search(r"Index Cond: \(\(model = .*\) AND \(content_hash = ", plan), plan


SEARCHES: dict[str, dict[str, Any]] = {
    "words": {"mode": "keyword"},
    "words and meaning": {"mode": "hybrid"},
    "recordings": {"filters": {"recordings": ["r1", "r2"]}},
    "title": {"filters": {"title": "t7"}},
    "dates": {"filters": {"from": str(datetime.now(UTC) - timedelta(hours=30))}},
    "platform": {"filters": {"platforms": ["p7"]}},
    "owner": {"filters": {"owners": ["u7"]}},
    "speaker": {"filters": {"speakers": ["S7"]}},
}
LARGE = ("transcript_chunks", "chunk_words_english", "published_recordings", "search_lexemes")
SCANNED = """
SELECT jsonb_object_agg(relname, seq_scan), (
    SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = 'chunk_words_english_words')
FROM pg_stat_user_tables WHERE relname = ANY(%s)
"""


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_the_large_tables_by_their_indexes(filled: str, name: str) -> None:
    """The statements are made inside of a function: what they really read is what counts."""
    asked = {"mode": "hybrid", "filters": {}, **SEARCHES[name]}
    with psycopg.connect(filled, autocommit=True) as connection:
        before = _scanned(connection)
        connection.execute(
            "SELECT count(*) FROM search_transcript_chunks('w7 of w9', '[1,2]', %s, %s)",
            [asked["mode"], json.dumps(asked["filters"])],
        )
        after = _scanned(connection)
    assert after[0] == before[0], "a large table was read whole"
    if not asked["filters"]:
        assert after[1] > (before[1] or 0), "the index on words was not read"


PAGES: dict[str, Callable[[Connection], object]] = {
    "the first page": lambda c: calls.calls(c, limit=50),
    "a later page": lambda c: calls.calls(c, limit=50, before=(datetime.now(UTC), "r300")),
    "a platform's": lambda c: calls.calls(c, Filters(platforms=["p7"]), limit=50),
    "one call": lambda c: calls.call(c, "r7"),
    "platforms": calls.platforms,
    "a transcript": lambda c: (calls.transcript(c, "r7", window=calls.Window(0, 1)) or ((), ()))[1],
}


@pytest.mark.parametrize("name", PAGES)
def test_calls_are_listed_and_read_by_indexes(filled: str, name: str) -> None:
    with psycopg.connect(filled, autocommit=True, row_factory=namedtuple_row) as connection:
        before = _scanned(connection)
        assert PAGES[name](connection)
        after = _scanned(connection)
    assert after[0] == before[0], "a large table was read whole"


def _scanned(connection: Connection) -> Any:
    """How often the large tables were read whole, and the index on words was read, until now."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT pg_stat_clear_snapshot()")
    counts = connection.execute(SCANNED, [list(LARGE)]).fetchone()
    assert counts is not None
    return counts


def _statement(name: str) -> str:
    """From whichever room has it."""
    room = engine if name in dir(engine) else health
    text: str = getattr(room, name).sql
    return text


def _plan(connection: Connection, statement: str, parameters: dict[str, Any]) -> str:
    rows = connection.execute("EXPLAIN " + statement, parameters)  # type: ignore[call-overload]
    return "\n".join(row[0] for row in rows)
