"""Who was taken for dead writes nothing more, and nobody keeps a lock without working."""

import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from embedding_assets.engine import database as database_module
from embedding_assets.engine import publication
from embedding_assets.engine.database import LOCK_SECONDS, Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.ending import Endings
from embedding_assets.engine.errors import (
    ClaimLostError,
    ErrorKind,
    LockedError,
    TakenForDeadError,
    TransientError,
)
from embedding_assets.engine.in_flight import Lane, Recording
from embedding_assets.engine.outcome import Result
from embedding_assets.engine.publication import AttemptFigures, fail
from embedding_assets.engine.queue import Claim, Claims
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.engine.vectors import InsertBatch, store_vectors
from embedding_assets_tests.calls import CHUNKING, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

EDIT = "UPDATE fathom_transcripts SET edited_text = 'new' WHERE recording_id = 'a'"
CHUNKS = "SELECT * FROM transcript_chunks ORDER BY recording_id, chunk_index"
FIGURES = AttemptFigures(
    lane="standard",
    model="m",
    chunks=1,
    embedded=0,
    reused=0,
    requests=0,
    tokens=0,
    cost_usd=None,
    seconds=0.0,
    smallest_insert_batch=1,
)


def _add(database: Database, *names: str) -> None:
    with database.transaction() as connection:
        for name in names:
            add_call(connection, name, talk(name, 10))


def _claim(claims: Claims) -> Claim:
    claim = next(claims.due())
    assert claim is not None
    return claim


def test_a_run_whose_lease_ran_out_publishes_stores_and_claims_nothing_more(
    database: Database, api: LoopbackAPI
) -> None:
    _add(database, "a")
    slow = Claims(database, "slow", timedelta(0))
    claim = _claim(slow)
    quick = Claims(database, "quick")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, quick)
    assert [o.result for o in run.embed(quick.these(["a"]))] == [Result.PUBLISHED]
    before = rows(database, CHUNKS)
    _add(database, "b")
    late = EmbeddingRun(database, embedder_of(api), CHUNKING, slow)
    with pytest.raises(TakenForDeadError, match="others go on"):
        list(late.embed([claim]))
    with pytest.raises(TakenForDeadError):
        store_vectors(database, "m", _vectors(database), InsertBatch(5), guard=slow.require_alive)
    with pytest.raises(TakenForDeadError):
        next(slow.due())
    with pytest.raises(TakenForDeadError):
        next(slow.these(["b"]))
    with pytest.raises(TakenForDeadError):
        next(slow.dead_letters())
    assert rows(database, CHUNKS) == before
    ended = "SELECT run_id, outcome FROM embedding_attempts ORDER BY finished_at"
    assert rows(database, ended) == [("slow", "failed"), ("quick", "published")]
    assert rows(database, "SELECT status FROM embedding_queue WHERE recording_id = 'b'") == [
        ("pending",)
    ]


def _vectors(database: Database) -> list[object]:
    """Rows that are there: what is guarded must not come so far as to find out."""
    return list(rows(database, "SELECT content_hash, embedding, token_count FROM chunk_embeddings"))


def test_a_claim_that_its_own_run_lost_and_took_anew_ends_nothing(database: Database) -> None:
    _add(database, "a")
    claims = Claims(database, "run")
    before = _claim(claims)
    with database.transaction() as connection:  # as a worker that took it for dead left it
        connection.execute(
            "UPDATE embedding_queue"
            " SET status = 'pending', claimed_by = NULL, lease_expires_at = NULL"
        )
    now = _claim(claims)
    figures = {"figures": FIGURES, "kind": ErrorKind.TRANSIENT, "error": "x"}
    with pytest.raises(ClaimLostError), database.transaction() as connection:
        fail(connection, "run", before, **figures)  # type: ignore[arg-type]
    with database.transaction() as connection:
        fail(connection, "run", now, **figures)  # type: ignore[arg-type]
    assert rows(database, "SELECT status, attempts FROM embedding_queue") == [("failed", 1)]


@contextmanager
def _frees(url: str, lock: str) -> Iterator[None]:
    """Holds that somebody gets this lock although the block never lets go of it by itself."""
    yield
    with psycopg.connect(url) as recorder:
        recorder.execute("SET lock_timeout = '10s'")
        recorder.execute(lock)  # type: ignore[call-overload]


def test_a_process_frozen_in_a_transaction_keeps_its_locks_for_seconds(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(database, "a")
    limits = "SET LOCAL idle_in_transaction_session_timeout = '200ms'"
    monkeypatch.setattr(database_module, "_WRITING", limits)
    lock = "SELECT FROM embedding_queue FOR UPDATE"

    def freeze() -> None:
        with database.transaction() as connection:
            with _frees(database_url, lock):
                connection.execute(lock)  # type: ignore[call-overload]
            connection.execute(lock)  # type: ignore[call-overload]

    with pytest.raises(TransientError, match="idle-in-transaction"):
        freeze()
    # It is the client that finds out, and asks anew.
    assert database.retrying(lambda c: c.execute("SELECT 1").fetchall()) == [(1,)]


def test_a_process_frozen_in_the_middle_of_a_publication_keeps_no_locks_either(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(database, "a")
    claims = Claims(database, "run")
    claim = _claim(claims)
    transcript = database.retrying(lambda c: read_transcript(c, "a", CHUNKING), snapshot=True)
    assert transcript is not None
    monkeypatch.setattr(publication, "PUBLISHING_SECONDS", 1)

    def freeze(connection: object, *_: object) -> None:
        connection.pgconn.flush()  # type: ignore[attr-defined]
        time.sleep(2)

    monkeypatch.setattr(publication, "hold_live", lambda *_: None)
    monkeypatch.setattr(publication, "insert_chunks", freeze)
    with (
        pytest.raises(TransientError),
        _frees(database_url, "SELECT FROM embedding_queue FOR UPDATE"),
        database.transaction() as connection,
    ):
        publication.publish(connection, "run", claim, transcript, figures=FIGURES)


@pytest.mark.parametrize("table", ["fathom_calls", "fathom_transcripts"])
def test_whose_lock_it_waits_for_is_told(database: Database, database_url: str, table: str) -> None:
    _add(database, "a")
    with psycopg.connect(database_url, application_name="a migration") as somebody:
        somebody.execute(f"LOCK TABLE {table}")  # type: ignore[call-overload]
        pid = somebody.info.backend_pid
        told = rf"{table} is locked by process {pid} .*\(a migration\), AccessExclusiveLock since"
        with (
            pytest.raises(LockedError, match=told),
            database.transaction(snapshot=True) as connection,
        ):
            read_transcript(connection, "a", CHUNKING)


def test_a_row_that_is_locked_for_long_is_waited_for_beside_the_others(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    _add(database, "a", "b")
    database.retries_seconds = 1
    claims = Claims(database, "run")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    outcomes = run.embed(claims.due())
    with psycopg.connect(database_url) as recorder:
        api.faults = [Fault(when=lambda _: recorder.execute(EDIT) and False, times=1)]
        first = next(outcomes)
        assert first.recording_id == "b"
        time.sleep(2 * LOCK_SECONDS)
    assert [o.recording_id for o in outcomes] == ["a"]
    assert {o.result for o in [first]} == {Result.PUBLISHED}
    assert rows(database, "SELECT DISTINCT attempts, crashes FROM embedding_queue") == [(0, 0)]


def test_a_run_that_stops_waits_for_a_locked_row_no_more(
    database: Database, database_url: str
) -> None:
    _add(database, "a")
    database.retries_seconds = 0
    recording = Recording(_claim(Claims(database, "run")), Lane.standard)
    recording.failure = TransientError("the model was away")
    endings = Endings(database, "run")
    with psycopg.connect(database_url) as recorder:
        recorder.execute(EDIT)
        endings.begin(recording, FIGURES)
        wait([endings.next])
        endings.stop()
        with pytest.raises(LockedError):
            list(endings.ended())


def test_a_run_that_ends_beside_a_locked_row_is_no_crash_of_its_recording(
    database: Database, database_url: str
) -> None:
    _add(database, "a")
    claims = Claims(database, "run", timedelta(seconds=1))
    _claim(claims)
    with psycopg.connect(database_url) as recorder:
        recorder.execute(EDIT)
        claims.release()
        assert rows(database, "SELECT claimed_by FROM embedding_queue") == [("run",)]
    time.sleep(1)
    again = _claim(Claims(database, "next"))
    assert (again.attempts, again.crashes) == (0, 0)
    assert rows(database, "SELECT outcome, error_kind FROM embedding_attempts") == [
        ("released", None)
    ]


def test_whose_row_it_is_that_is_locked_is_said_of_nobody_who_only_works(
    database: Database, database_url: str
) -> None:
    _add(database, "a")
    with psycopg.connect(database_url) as innocent, psycopg.connect(database_url) as recorder:
        innocent.execute("LOCK TABLE chunk_embeddings IN SHARE UPDATE EXCLUSIVE MODE")
        recorder.execute(EDIT)
        with pytest.raises(LockedError, match="a row or a table"), database.transaction() as ours:
            ours.execute("SELECT FROM embedding_queue FOR UPDATE")


def test_a_database_that_takes_no_writes_is_told_as_that(database: Database) -> None:
    with (
        pytest.raises(TransientError, match=r"takes no writes: DATABASE_URL"),
        database.transaction(snapshot=True) as connection,
    ):
        connection.execute("DELETE FROM embedding_queue")
