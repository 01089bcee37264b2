"""Attempts end on a connection of their own, beside the run that embeds the next calls."""

import threading
from dataclasses import replace

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.queue import Claims
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

PUBLISHED = "SELECT recording_id FROM embedding_attempts WHERE outcome = 'published' ORDER BY 1"


def _add_calls(database: Database, names: str) -> None:
    with database.transaction() as connection:
        for name in names:
            add_call(connection, name, talk(name, 40))


def _run(database: Database, api: LoopbackAPI) -> tuple[Claims, EmbeddingRun]:
    """A run whose requests are small and go out one after the other."""
    embedder = embedder_of(api, concurrency=1)
    embedder.limits = replace(embedder.limits, max_inputs=5)
    claims = Claims(database, "run")
    return claims, EmbeddingRun(database, embedder, CHUNKING, claims)


def test_the_next_calls_are_embedded_while_one_waits_to_be_published(
    database_url: str, database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, "abcd")
    outcomes: list[Outcome] = []
    asked: list[str] = []
    api.faults = [Fault(when=lambda texts: asked.extend(texts) is not None)]

    def embed() -> None:
        with Database(database_url) as own:
            claims, run = _run(own, api)
            outcomes.extend(run.embed(claims.due()))

    thread = threading.Thread(target=embed)
    with database.another() as other, other.transaction() as connection:
        connection.execute("LOCK TABLE published_recordings IN SHARE MODE")
        thread.start()
        for _ in range(300):
            if any("In d I say sentence number 39" in text for text in asked):
                break
            thread.join(0.1)
        else:
            pytest.fail("the last call was not asked for while the first could not be published")
        assert rows(database, PUBLISHED) == []
    thread.join(timeout=60)
    assert {o.recording_id: o.result for o in outcomes} == dict.fromkeys("abcd", Result.PUBLISHED)
    assert rows(database, PUBLISHED) == [(name,) for name in "abcd"]


def test_what_was_published_before_an_error_is_told(database: Database, api: LoopbackAPI) -> None:
    _add_calls(database, "abcdefghij")
    claims, run = _run(database, api)
    told: list[str] = []

    def tell() -> None:
        for outcome in run.embed(claims.due()):
            told.append(outcome.recording_id)
            if len(told) == 1:
                with database.another() as other, other.transaction() as connection:
                    connection.execute("UPDATE embedding_models SET is_live = false")

    with pytest.raises(ConfigurationError, match="switched to another model"):
        tell()
    assert sorted(told) == [row.recording_id for row in rows(database, PUBLISHED)]
    assert rows(database, "SELECT 1 FROM embedding_queue WHERE status = 'processing'") == []


def test_a_run_that_is_stopped_leaves_nothing_half_ended(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, "abcdefghijklmno")
    claims, run = _run(database, api)
    outcomes = run.embed(claims.due())
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    published = {row.recording_id for row in rows(database, PUBLISHED)}
    states = rows(database, "SELECT recording_id, status FROM embedding_queue")
    assert {s.recording_id for s in states if s.status == "completed"} == published
    assert {s.status for s in states} <= {"completed", "pending"}
    again = {outcome.recording_id for outcome in embed()}
    assert again == set("abcdefghijklmno") - published
    assert api.stats.sent_twice == []


def test_a_call_that_changed_while_it_was_embedded_is_done_again_by_the_same_run(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, "abcd")
    changed = threading.Event()

    def change(_: object) -> bool:
        if not changed.is_set():
            changed.set()
            with database.another() as other, other.transaction() as connection:
                connection.execute(
                    "UPDATE fathom_transcripts SET edited_text = 'Otherwise.'"
                    " WHERE recording_id = 'a'"
                )
        return False

    api.faults = [Fault(when=change)]
    claims, run = _run(database, api)
    outcomes = list(run.embed(claims.due()))
    assert [outcome.recording_id for outcome in outcomes] == [*"abcd", "a"]
    assert {outcome.result for outcome in outcomes} == {Result.PUBLISHED}
    said = rows(database, "SELECT chunk_text FROM transcript_chunks WHERE recording_id = 'a'")
    assert not any("sentence number" in row.chunk_text for row in said)
    assert rows(database, "SELECT DISTINCT status FROM embedding_queue") == [("completed",)]
