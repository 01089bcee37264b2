import threading
from collections.abc import Iterator
from typing import Any

import pytest

from embedding_assets.engine import verdicts
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError, ErrorKind
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.queue import Claim, Claims, queue_counts
from embedding_assets_tests.calls import (
    CHUNKING,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

MARKER = "unacceptable"


def _statuses(database: Database) -> dict[str, str]:
    return dict(rows(database, "SELECT recording_id, status FROM embedding_queue"))


def _chunks(database: Database, recording_id: str) -> list[Any]:
    return rows(
        database,
        "SELECT chunk_index, chunk_text, content_hash FROM transcript_chunks"
        " WHERE recording_id = %s ORDER BY chunk_index",
        [recording_id],
    )


def test_every_recording_is_published_with_a_vector_for_each_chunk(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        for name in "abc":
            add_call(connection, name, talk(name, 40))
    outcomes = embed()
    assert {o.recording_id: o.result for o in outcomes} == dict.fromkeys("abc", Result.PUBLISHED)
    assert set(_statuses(database).values()) == {"completed"}
    for outcome in outcomes:
        assert len(_chunks(database, outcome.recording_id)) == outcome.figures.chunks > 5
    missing = rows(
        database,
        "SELECT count(*) FROM transcript_chunks WHERE content_hash NOT IN"
        " (SELECT content_hash FROM chunk_embeddings)",
    )
    assert missing == [(0,)]


def test_a_second_run_sends_nothing(database: Database, api: LoopbackAPI, embed: Embed) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 40))
    embed()
    before = api.stats.requests
    assert embed() == []
    (again,) = embed("a")
    assert (again.result, again.figures.embedded) == (Result.PUBLISHED, 0)
    assert again.figures.reused == again.figures.chunks
    assert api.stats.requests == before


def test_an_edit_sends_the_chunks_that_hold_it_only(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 300))
    embed()
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'In a I said it otherwise, once.'"
            " WHERE position = 150"
        )
    (outcome,) = embed()
    holding = [c for c in _chunks(database, "a") if "said it otherwise" in c.chunk_text]
    assert 1 <= outcome.figures.embedded <= len(holding) + 1
    assert outcome.figures.chunks > 40
    assert api.stats.sent_twice == []


def test_a_text_that_two_recordings_share_is_sent_once(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for name in ("a", "b", "c"):
            add_call(connection, name, talk("the same", 60))
    outcomes = embed()
    assert [o.result for o in outcomes] == [Result.PUBLISHED] * 3
    assert api.stats.sent_twice == []
    assert sum(o.figures.embedded for o in outcomes) == len(api.stats.inputs)


def test_tokens_and_requests_of_all_attempts_are_what_the_server_counted(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(20):
            add_call(connection, f"r{number}", talk(f"r{number}", 30))
    embed()
    figures = rows(
        database,
        "SELECT sum(tokens)::int AS tokens, sum(requests)::int AS requests FROM embedding_attempts",
    )
    assert figures == [(api.stats.tokens, api.stats.requests)]


def test_requests_are_packed_across_recordings(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(50):
            add_call(connection, f"r{number}", talk(f"r{number}", 10))
    embed()
    assert api.stats.requests <= 4


def test_one_refused_input_fails_its_recording_and_no_other(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    api.faults = [
        Fault(status=400, param="input", when=lambda texts: any(MARKER in t for t in texts))
    ]
    with database.transaction() as connection:
        for number in range(200):
            add_call(connection, f"r{number}", talk(f"r{number}", 8))
        connection.execute(
            "UPDATE fathom_transcripts SET text = text || %s"
            " WHERE recording_id = 'r77' AND position = 3",
            [MARKER],
        )
    outcomes = embed()
    failed = [o for o in outcomes if o.result is Result.FAILED]
    assert [(o.recording_id, o.error_kind) for o in failed] == [("r77", ErrorKind.INVALID_INPUT)]
    assert MARKER not in (failed[0].error or "")
    assert sum(o.result is Result.PUBLISHED for o in outcomes) == 199
    assert _statuses(database)["r77"] == "failed"
    assert api.stats.sent_twice == []


def test_three_failures_make_a_dead_letter_with_its_reason(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    api.faults = [Fault(status=400, param="input")]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 3))
    waits = []
    for _ in range(3):
        embed()
        (row,) = rows(
            database,
            "SELECT status, attempts, error_kind,"
            " round(extract(epoch FROM next_attempt_at - now()))::int AS wait"
            " FROM embedding_queue",
        )
        waits.append((row.status, row.attempts, row.error_kind, round(row.wait, -1)))
        with database.transaction() as connection:
            connection.execute(
                "UPDATE embedding_queue SET next_attempt_at = now() WHERE status = 'failed'"
            )
    assert waits == [
        ("failed", 1, "invalid_input", 30),
        ("failed", 2, "invalid_input", 90),
        ("dead_letter", 3, "invalid_input", 3600),
    ]
    assert rows(database, "SELECT count(*) FROM embedding_attempts") == [(3,)]
    assert embed() == []


CONFIGURATION_FAULTS = {
    "a refused key": Fault(status=401),
    "a forbidden key": Fault(status=403),
    "an unknown model": Fault(status=404, code="model_not_found"),
    "a used-up quota": Fault(status=429, code="insufficient_quota"),
    "other dimensions": Fault(body=b'{"data":[{"index":0,"embedding":[1.0]}]}'),
}


@pytest.mark.parametrize("fault", CONFIGURATION_FAULTS)
def test_a_configuration_error_stops_at_once_and_costs_no_attempt(
    database: Database, api: LoopbackAPI, embed: Embed, fault: str
) -> None:
    api.faults = [CONFIGURATION_FAULTS[fault]]
    with database.transaction() as connection:
        add_call(connection, "a", ["hello"])
    with pytest.raises(ConfigurationError):
        embed()
    assert rows(database, "SELECT status, attempts, claimed_by FROM embedding_queue") == [
        ("pending", 0, None)
    ]
    assert rows(database, "SELECT outcome, error_kind, requests FROM embedding_attempts") == [
        ("released", "configuration", 1)
    ]
    assert api.stats.requests == 1


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(drop=True)])
def test_a_passing_fault_is_survived_in_the_run(
    database: Database, api: LoopbackAPI, embed: Embed, fault: Fault
) -> None:
    api.faults = [Fault(**{**vars(fault), "times": 1})]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 10))
    (outcome,) = embed()
    assert outcome.result is Result.PUBLISHED
    assert outcome.figures.requests == 2


def test_an_api_that_is_down_costs_few_recordings_an_attempt(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    api.faults = [Fault(status=503)]
    with database.transaction() as connection:
        for number in range(600):
            add_call(connection, f"r{number:03}", [f"Hello from {number}."])
    embedder = embedder_of(api, concurrency=1)
    limits = embedder.limits
    embedder.limits = type(limits)(4, limits.max_tokens, limits.max_input_tokens, 1)
    outcomes = embed(embedder=embedder)
    assert {o.error_kind for o in outcomes} == {ErrorKind.TRANSIENT}
    with database.transaction() as connection:
        counts = queue_counts(connection)
    assert counts.by_status["pending"] > 500
    assert api.stats.requests <= 2 * verdicts.FAILED_REQUESTS + 2


def test_a_change_while_a_recording_is_processed_leaves_it_due(
    database: Database, database_url: str, api: LoopbackAPI, embed: Embed
) -> None:
    changed = threading.Event()

    def change(_: object) -> bool:
        if not changed.is_set():
            with Database(database_url) as other, other.transaction() as connection:
                connection.execute(
                    "UPDATE fathom_transcripts SET edited_text = 'corrected' WHERE position = 1"
                )
            changed.set()
        return False

    api.faults = [Fault(when=change)]
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 10))
    claims = Claims(database, "run")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    assert [o.result for o in run.embed(iter(claims.these(["a"])))] == [Result.PUBLISHED]
    assert _statuses(database) == {"a": "pending"}
    embed()
    assert _statuses(database) == {"a": "completed"}
    assert any("corrected" in chunk.chunk_text for chunk in _chunks(database, "a"))


def test_readers_see_the_old_or_the_new_recording_and_never_a_part(
    database: Database, database_url: str, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("version 0", 120))
    embed()
    seen: set[tuple[bytes, ...]] = set()
    ended = threading.Event()

    def read() -> None:
        with Database(database_url) as other:
            while not ended.is_set():
                seen.add(tuple(chunk.content_hash for chunk in _chunks(other, "a")))

    reader = threading.Thread(target=read)
    whole = {tuple(chunk.content_hash for chunk in _chunks(database, "a"))}
    reader.start()
    try:
        for version in range(1, 15):
            with database.transaction() as connection:
                connection.execute(
                    "UPDATE fathom_transcripts SET edited_text = replace(text, 'version 0', %s)",
                    [f"version {version}"],
                )
            embed()
            whole.add(tuple(chunk.content_hash for chunk in _chunks(database, "a")))
    finally:
        ended.set()
        reader.join()
    assert len(seen) > 3
    assert seen <= whole


def test_a_deleted_call_leaves_nothing_for_readers(database: Database, embed: Embed) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 10))
        add_call(connection, "b", talk("b", 10))
    embed()
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    (outcome,) = embed()
    assert outcome.result is Result.SOURCE_GONE
    assert _chunks(database, "a") == []
    assert _statuses(database) == {"b": "completed"}


def test_a_call_without_a_transcript_is_completed_without_chunks(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", [])
        add_call(connection, "b", ["  ", ""])
    assert {(o.recording_id, o.result, o.figures.chunks) for o in embed()} == {
        ("a", Result.PUBLISHED, 0),
        ("b", Result.PUBLISHED, 0),
    }


def test_what_failed_before_is_inserted_in_small_batches(database: Database, embed: Embed) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 60))
        add_call(connection, "b", talk("b", 60))
        connection.execute("UPDATE embedding_queue SET attempts = 1 WHERE recording_id = 'b'")
    lanes = {o.recording_id: (o.figures.lane, o.figures.smallest_insert_batch) for o in embed()}
    assert lanes == {"a": (Lane.standard, 50), "b": (Lane.small_batch, 5)}


def test_vectors_of_another_model_are_not_mixed_in(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 10))
    embed()
    other = embedder_of(api, model="text-embedding-3-large")
    with pytest.raises(ConfigurationError, match="switch-model"):
        embed(embedder=other)


def test_an_attempt_tells_the_smallest_batch_of_its_own_inserts(
    database: Database, api: LoopbackAPI
) -> None:
    with database.transaction() as connection:
        # For a while, an insert of more than three rows takes longer than the server allows.
        connection.execute(
            """
            CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF (SELECT count(*) FROM new_rows) > 3 THEN PERFORM pg_sleep(10); END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER dawdle AFTER INSERT ON chunk_embeddings
                REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
            DO $$ BEGIN
                EXECUTE format('ALTER DATABASE %I SET statement_timeout = 600', current_database());
            END $$;
            """
        )
    database.close()  # the next connection has the timeout
    claims = Claims(database, "run")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    outcomes: list[Outcome] = []

    def claimed() -> Iterator[Claim | None]:
        for number, name in enumerate("abc"):
            with database.transaction() as connection:
                add_call(connection, name, talk(name, 20 if name == "a" else 150))
                if name == "b":
                    connection.execute("DROP TRIGGER dawdle ON chunk_embeddings")
            yield from claims.these([name])
            while len(outcomes) == number:
                yield None

    for outcome in run.embed(claimed()):
        outcomes.append(outcome)  # the claims wait for it
    assert [o.recording_id for o in outcomes] == ["a", "b", "c"]
    a, _, c = (o.figures.smallest_insert_batch for o in outcomes)
    assert a <= 3 < c
    recorded = "SELECT smallest_insert_batch FROM embedding_attempts ORDER BY recording_id"
    assert [row[0] for row in rows(database, recorded)] == [
        o.figures.smallest_insert_batch for o in outcomes
    ]
