"""The plans of the statements that run often: none reads a whole table."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.database import sql as engine
from embedding_assets.health.statements import sql as health

FILL = """
INSERT INTO fathom_calls (recording_id, title)
SELECT 'r' || n, 'A call' FROM generate_series(1, 20000) AS n;
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
    "lock_claim": {"recording_id": "r1", "run_id": "run"},
    "held": {},
    "call": {"recording_id": "r1"},
    "segments": {"recording_id": "r1"},
    "transcript_version": {"recording_id": "r1"},
    "withdraw_chunks": {"recording_id": "r1"},
    "stored_hashes": {"model": "m", "hashes": HASHES},
    "hold_vectors": {"model": "m", "hashes": HASHES},
    "least_recently_reconciled": {"limit": 500},
    "lock_unreferenced": {"after": 0, "until": 1000, "grace": timedelta(days=1)},
    "worst_dead_letters": {"limit": 10, "max_recoveries": 3},
    "longest_waiting": {"limit": 3},
    "stalest_claims": {"limit": 3},
    "runs_in_flight": {},
    "attempts_by_hour": {"since": datetime.now(UTC) - timedelta(days=1)},
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
    # There are a handful of models.
    assert "Seq Scan" not in plan.replace("Seq Scan on embedding_models", ""), plan


def test_health_reads_the_queue_and_the_calls_and_no_larger_table(filled: str) -> None:
    with Database(filled) as database, database.transaction() as connection:
        parameters = {"max_attempts": 3, "max_recoveries": 3}
        plan = _plan(connection, health.health_numbers.sql, parameters)
    for table in ("embedding_attempts", "transcript_chunks", "chunk_embeddings"):
        assert f"Seq Scan on {table}" not in plan, plan


def test_an_inspection_finds_each_vector_by_both_columns_of_its_index(filled: str) -> None:
    with Database(filled) as database, database.transaction() as connection:
        plan = _plan(connection, health.look_at.sql, {"recording_ids": ["r1", "r2"]})
    assert re.search(r"Index Cond: \(\(model = .*\) AND \(content_hash = ", plan), plan


def _statement(name: str) -> str:
    """From whichever room has it."""
    room = engine if name in engine.available_queries else health
    text: str = getattr(room, name).sql
    return text


def _plan(connection: Connection, statement: str, parameters: dict[str, Any]) -> str:
    rows = connection.execute("EXPLAIN " + statement, parameters)  # type: ignore[call-overload]
    return "\n".join(row[0] for row in rows)
