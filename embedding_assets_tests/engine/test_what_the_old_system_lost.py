"""One test for each way in which the system this one replaces lost data, named after it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from embedding_assets.engine import queue
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.queue import MAX_RECOVERIES, Claims
from embedding_assets.settings import Settings
from embedding_assets.wiring import build_embedder
from embedding_assets_tests.calls import (
    CHUNKING,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI


def test_secrets_were_not_set_and_nobody_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = Settings(embedding_provider="openai", openai_api_key=None)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        build_embedder(settings)


def test_chunks_were_deleted_and_inserted_outside_a_transaction(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 40))
    embed()
    before = rows(database, "SELECT chunk_text FROM transcript_chunks ORDER BY chunk_index")
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET edited_text = text || ' Again.'")
    api.faults = [Fault(status=400, param="input")]
    assert [o.result for o in embed()] == [Result.FAILED]
    assert rows(database, "SELECT chunk_text FROM transcript_chunks ORDER BY chunk_index") == before


def test_a_retry_embedded_everything_again(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    poison = "sentence number 77"
    api.faults = [
        Fault(status=400, param="input", when=lambda texts: any(poison in t for t in texts))
    ]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 200))
    (failed,) = embed()
    assert failed.result is Result.FAILED
    assert failed.figures.embedded > 0
    api.faults = []
    (retried,) = embed("a")
    assert retried.result is Result.PUBLISHED
    assert retried.figures.reused >= failed.figures.embedded
    assert api.stats.sent_twice == []


def test_rows_stuck_in_processing_were_never_taken_back(database: Database, embed: Embed) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
    died = Claims(database, "died", lease=timedelta(0))
    assert next(died.due()).recording_id == "a"
    (outcome,) = embed()
    assert outcome.result is Result.PUBLISHED
    history = "SELECT run_id, outcome, error_kind FROM embedding_attempts ORDER BY finished_at"
    assert rows(database, history) == [("died", "failed", "crashed"), ("run", "published", None)]


def test_parallel_recovery_runs_took_the_same_row(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    with database.transaction() as connection:
        for number in range(20):
            add_call(connection, f"r{number}", talk(f"r{number}", 5))
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
            " error_kind = 'transient', last_error = 'x', next_attempt_at = now()"
        )

    def recover(number: int) -> list[Outcome]:
        with Database(database_url) as own:
            claims = Claims(own, f"recovery-{number}")
            run = EmbeddingRun(own, embedder_of(api), CHUNKING, claims)
            return list(run.embed(claims.dead_letters()))

    with ThreadPoolExecutor(4) as pool:
        outcomes = [o for each in pool.map(recover, range(4)) for o in each]
    assert sorted(o.recording_id for o in outcomes) == sorted(f"r{n}" for n in range(20))
    assert {o.result for o in outcomes} == {Result.PUBLISHED}


def test_a_recording_was_queued_once_per_job(database: Database) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
        for _ in range(3):
            queue.enqueue_recordings(connection, ["a"])
            connection.execute("UPDATE fathom_transcripts SET text = text || '.'")
    queue.reconcile(database)
    assert rows(database, "SELECT count(*) FROM embedding_queue") == [(1,)]


def test_a_long_call_lost_its_end_after_1000_rows(database: Database, embed: Embed) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 2_500))
    embed()
    (last,) = rows(
        database, "SELECT chunk_text FROM transcript_chunks ORDER BY chunk_index DESC LIMIT 1"
    )
    assert "sentence number 2499" in last.chunk_text
    assert rows(database, "SELECT max(last_position) FROM transcript_chunks") == [(2499,)]


def test_segments_were_sorted_by_a_text_timestamp_and_edits_ignored(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", ["zero", "one", "two", "gone"])
        connection.execute(
            "UPDATE fathom_transcripts SET start_seconds = 100 - 9 * position;"
            "UPDATE fathom_transcripts SET edited_text = 'ONE' WHERE position = 1;"
            "UPDATE fathom_transcripts SET is_deleted = true WHERE position = 3"
        )
    embed()
    assert rows(database, "SELECT chunk_text FROM transcript_chunks") == [
        ("Ann: zero\nBo: ONE\nAnn: two",)
    ]


def test_dead_letters_were_retried_for_ever_or_never(database: Database, api: LoopbackAPI) -> None:
    api.faults = [Fault(status=400, param="input")]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
            " error_kind = 'transient', last_error = 'x', next_attempt_at = now()"
        )
    recovered = 0
    for round_ in range(MAX_RECOVERIES + 2):
        claims = Claims(database, f"recovery-{round_}")
        run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
        recovered += len(list(run.embed(claims.dead_letters())))
        assert rows(
            database,
            "SELECT status, next_attempt_at > now() + interval '59 minutes' AS later"
            " FROM embedding_queue",
        ) == [("dead_letter", round_ < MAX_RECOVERIES)]
        with database.transaction() as connection:
            connection.execute("UPDATE embedding_queue SET next_attempt_at = now()")
    assert recovered == MAX_RECOVERIES
    with database.transaction() as connection:
        assert queue.retry(connection, ["a"], force=False) == []
        assert queue.retry(connection, ["a"], force=True) == ["a"]


CHANGES: dict[str, str] = {
    "an edit": "UPDATE fathom_transcripts SET edited_text = 'x' WHERE recording_id = 'a'",
    "a deletion": "UPDATE fathom_transcripts SET is_deleted = true"
    " WHERE recording_id = 'a' AND position = 0",
    "a new title": "UPDATE fathom_calls SET title = 'x' WHERE recording_id = 'a'",
    "a moved segment": "UPDATE fathom_transcripts SET position = 99"
    " WHERE recording_id = 'a' AND position = 0",
    "a deleted call": "DELETE FROM fathom_calls WHERE recording_id = 'a'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_that_no_trigger_told_of_are_found(
    database: Database, embed: Embed, change: str
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
        add_call(connection, "b", talk("b", 5))
    embed()
    with database.transaction() as connection:
        connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
        connection.execute(CHANGES[change])  # type: ignore[call-overload]
    assert rows(database, "SELECT 1 FROM embedding_queue WHERE status = 'pending'") == []
    queue.reconcile(database)
    assert rows(database, "SELECT recording_id FROM embedding_queue WHERE status = 'pending'") == [
        ("a",)
    ]
    expected = Result.SOURCE_GONE if change == "a deleted call" else Result.PUBLISHED
    assert [o.result for o in embed()] == [expected]


def test_recordings_from_before_the_installation_are_found(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        connection.execute("SET LOCAL session_replication_role = replica")
        add_call(connection, "old", talk("old", 5))
    queue.reconcile(database)
    assert [(o.recording_id, o.result) for o in embed()] == [("old", Result.PUBLISHED)]


def test_an_edit_that_is_taken_back_costs_nothing(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 40))
    embed()
    sent = api.stats.requests
    for edit in ("'x'", "NULL"):
        with database.transaction() as connection:
            connection.execute(f"UPDATE fathom_transcripts SET edited_text = {edit}")  # noqa: S608  # type: ignore[call-overload]
    (outcome,) = embed()
    assert (outcome.result, outcome.figures.embedded) == (Result.PUBLISHED, 0)
    assert api.stats.requests == sent


def test_a_recording_that_cannot_be_read_fails_alone(database: Database, embed: Embed) -> None:
    with database.transaction() as connection:
        for name in ("a", "b"):
            add_call(connection, name, talk(name, 5))
        connection.execute(
            "UPDATE fathom_calls SET recorded_at = 'infinity' WHERE recording_id = 'a'"
        )
    results = {outcome.recording_id: outcome.result for outcome in embed()}
    assert results == {"a": Result.FAILED, "b": Result.PUBLISHED}


def test_a_recorders_open_transaction_stops_no_renewal_and_no_release(
    database: Database, database_url: str
) -> None:
    with database.transaction() as connection:
        for name in ("a", "b"):
            add_call(connection, name, talk(name, 5))
    claims = Claims(database, "run")
    assert len([claim for claim in claims.these(["a", "b"]) if claim]) == 2
    with Database(database_url) as recorder, recorder.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'x' WHERE recording_id = 'a'"
        )
        with database.transaction() as own:
            own.execute("SET LOCAL lock_timeout = '2s'")
            assert sql.renew_leases(own, run_id="run", lease=timedelta(minutes=5)) == 1
        claims.release()
    states = dict(rows(database, "SELECT recording_id, status FROM embedding_queue"))
    assert states == {"a": "processing", "b": "pending"}


def test_a_configuration_error_costs_a_dead_letter_no_recovery(
    database: Database, api: LoopbackAPI
) -> None:
    api.faults = [Fault(status=401)]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
            " error_kind = 'transient', last_error = 'x', next_attempt_at = now()"
        )
    claims = Claims(database, "recovery")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    with pytest.raises(ConfigurationError):
        list(run.embed(claims.dead_letters()))
    state = rows(database, "SELECT status, attempts, recoveries FROM embedding_queue")
    assert state == [("dead_letter", 3, 0)]
