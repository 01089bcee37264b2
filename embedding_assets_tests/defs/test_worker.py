from datetime import timedelta

import dagster as dg
import pytest

from embedding_assets.definitions import defs
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.defs.runs import ERROR_KIND_TAG
from embedding_assets.engine import embedding
from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import add_call, talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    Layer,
    failure_of,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI


def _add_calls_behind_dagsters_back(layer: Layer, *names: str) -> None:
    with layer.database.transaction() as connection:
        for name in names:
            add_call(connection, name, talk(name, 20))


def test_it_embeds_what_is_due_and_makes_it_show_as_materialized_partitions(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    result = layer.worker()
    assert result.success
    found = layer.materializations(result)
    assert set(found) == {"a", "b", "c"}
    assert all(metadata["chunks"] == metadata["embedded"] > 0 for metadata in found.values())
    assert sum(metadata["tokens"] for metadata in found.values()) == api.stats.tokens
    assert set(layer.instance.get_dynamic_partitions(RECORDINGS)) == {"a", "b", "c"}
    assert set(layer.partition_states().values()) == {"MATERIALIZED"}
    assert set(layer.statuses().values()) == {"completed"}


def test_a_second_run_asks_for_nothing_and_materializes_nothing(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    layer.worker()
    requests = api.stats.requests
    again = layer.worker()
    assert again.success
    assert layer.materializations(again) == {}
    assert api.stats.requests == requests
    assert api.stats.sent_twice == []


def test_it_fails_at_the_end_naming_what_failed(layer: Layer, api: LoopbackAPI) -> None:
    _add_calls_behind_dagsters_back(layer, *"abcdef")
    for name in ("b", "e"):
        layer.execute(
            "UPDATE fathom_transcripts SET text = %s WHERE recording_id = %s AND position = 7",
            MARKER,
            name,
        )
    api.faults = [refusing_the_marker()]
    result = layer.worker()
    assert set(layer.materializations(result)) == {"a", "c", "d", "f"}
    text, metadata = failure_of(result)
    assert text.startswith("2 recordings failed: ")
    assert sorted(metadata["failed_recordings"]) == ["b", "e"]
    assert "error_kind" not in metadata
    assert ERROR_KIND_TAG not in layer.dagster_run(result.run_id).tags


def test_many_failures_are_counted_and_the_first_of_them_named(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, *(f"r{n:02}" for n in range(25)))
    api.faults = [Fault(status=400, param="input")]
    text, metadata = failure_of(layer.worker())
    assert text.startswith("25 recordings failed: ")
    assert text.endswith("; and 5 more")
    assert len(metadata["failed_recordings"]) == 25


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("OPENAI_API_KEY", "", "OPENAI_API_KEY"),
        ("EMBEDDING_DIMENSIONS", "4096", "EMBEDDING_DIMENSIONS"),
        ("CHUNK_MAX_TOKENS", "5000", "CHUNK_MAX_TOKENS"),
    ],
)
def test_a_wrong_setting_stops_the_run_and_is_named(
    layer: Layer, setting: str, value: str, named: str
) -> None:
    _add_calls_behind_dagsters_back(layer, "a")
    layer.environment.setenv(setting, value)
    result = layer.worker()
    text, metadata = failure_of(result)
    assert text.startswith("configuration: ")
    assert named in text
    assert metadata["error_kind"] == "configuration"
    assert layer.dagster_run(result.run_id).tags[ERROR_KIND_TAG] == "configuration"
    assert layer.rows("SELECT status, attempts, claimed_by FROM embedding_queue") == [
        ("pending", 0, None)
    ]


def test_a_refused_key_stops_the_run_and_costs_no_recording_an_attempt(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    api.faults = [Fault(status=401, code="invalid_api_key")]
    result = layer.worker()
    text, metadata = failure_of(result)
    assert "OPENAI_API_KEY" in text
    assert "sk-very-secret" not in text
    assert metadata["error_kind"] == "configuration"
    assert layer.dagster_run(result.run_id).tags[ERROR_KIND_TAG] == "configuration"
    assert layer.rows("SELECT DISTINCT status, attempts, claimed_by FROM embedding_queue") == [
        ("pending", 0, None)
    ]
    kept = layer.rows("SELECT DISTINCT outcome, error_kind FROM embedding_attempts")
    assert kept == [("released", "configuration")]

    api.faults = []
    assert layer.worker().success
    assert set(layer.statuses().values()) == {"completed"}


def test_an_unmigrated_database_is_a_configuration_error(
    layer: Layer, empty_database_url: str
) -> None:
    layer.environment.setenv("DATABASE_URL", empty_database_url)
    text, metadata = failure_of(layer.worker())
    assert "embedding-assets init" in text
    assert metadata["error_kind"] == "configuration"


def test_a_spent_time_budget_ends_the_run_well_and_leaves_the_rest_due(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, *(f"r{n:02}" for n in range(30)))
    # Twenty are claimed at once, and go in four rounds, each longer than the budget.
    layer.environment.setattr(embedding, "MOST_AT_ONCE", 5)
    api.latency = 1.2
    result = layer.worker(time_budget_seconds=1)
    assert result.success
    done = set(layer.materializations(result))
    states = layer.statuses()
    assert len(done) == 20
    assert {name for name, state in states.items() if state == "completed"} == done
    assert {state for name, state in states.items() if name not in done} == {"pending"}


def test_named_recordings_are_embedded_whatever_their_state(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, *"abcd")
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, error_kind = 'transient',"
        " last_error = 'away', next_attempt_at = now() + interval '1 hour'"
        " WHERE recording_id IN ('b', 'd')"
    )
    result = layer.worker(recording_ids=["b", "c"])
    assert result.success
    assert set(layer.materializations(result)) == {"b", "c"}
    assert layer.statuses() == {
        "a": "pending",
        "b": "completed",
        "c": "completed",
        "d": "dead_letter",
    }


def test_a_run_that_is_known_to_have_ended_is_taken_over_at_once(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    ended = layer.started_run()
    layer.instance.report_run_failed(ended)
    layer.hold(ended.run_id, "a", "b", lease=timedelta(minutes=5))
    result = layer.worker(take_over=ended.run_id)
    assert result.success
    assert set(layer.materializations(result)) == {"a", "b", "c"}
    crashed = layer.rows(
        "SELECT recording_id, error_kind FROM embedding_attempts WHERE run_id = %s ORDER BY 1",
        ended.run_id,
    )
    assert crashed == [("a", "crashed"), ("b", "crashed")]


def test_a_dead_run_loses_its_claims_when_they_expire(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    dead = layer.started_run(hours_ago=1)
    layer.hold(dead.run_id, "a", "b", lease=timedelta(seconds=0))
    result = layer.worker()
    assert result.success
    assert set(layer.materializations(result)) == {"a", "b", "c"}


def test_a_living_run_keeps_its_claims(layer: Layer, database_url: str) -> None:
    _add_calls_behind_dagsters_back(layer, *"abc")
    alive = layer.started_run()
    layer.hold(alive.run_id, "a", lease=timedelta(minutes=5))
    result = layer.worker()
    assert set(layer.materializations(result)) == {"b", "c"}
    assert layer.dagster_run(alive.run_id).status is dg.DagsterRunStatus.STARTED
    with Database(database_url) as other, other.transaction() as connection:
        held = connection.execute(
            "SELECT claimed_by FROM embedding_queue WHERE recording_id = 'a'"
        ).fetchone()
    assert held == (alive.run_id,)


def test_a_deleted_call_is_withdrawn(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, *"ab")
    layer.worker()
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    result = layer.worker()
    assert result.success
    assert layer.materializations(result) == {}
    assert layer.rows("SELECT DISTINCT recording_id FROM transcript_chunks") == [("b",)]


def test_what_was_there_before_change_tracking_is_found(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, *"ab")
    layer.execute("DELETE FROM embedding_queue")
    assert set(layer.materializations(layer.worker())) == {"a", "b"}


def test_recovery_gives_the_oldest_dead_letters_another_try_with_small_batches(
    layer: Layer,
) -> None:
    names = [f"r{n}" for n in range(7)]
    _add_calls_behind_dagsters_back(layer, *names)
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, error_kind = 'transient',"
        " last_error = 'away',"
        " next_attempt_at = now() - right(recording_id, 1)::int * interval '1 hour'"
    )
    result = layer.run("recover_dead_letters", "embed_dead_letters")
    assert result.success
    found = layer.materializations(result)
    assert set(found) == {"r6", "r5", "r4", "r3", "r2"}
    assert {metadata["lane"] for metadata in found.values()} == {"small_batch"}


def test_a_dead_letter_that_waits_for_a_person_needs_force(layer: Layer) -> None:
    _add_calls_behind_dagsters_back(layer, "a")
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, recoveries = 3,"
        " error_kind = 'transient', last_error = 'away', next_attempt_at = now()"
    )
    for config in ({}, {"recording_ids": ["a"]}):
        left = layer.run("recover_dead_letters", "embed_dead_letters", **config)
        assert left.success
        assert layer.materializations(left) == {}
    forced = layer.run(
        "recover_dead_letters", "embed_dead_letters", recording_ids=["a"], force=True
    )
    assert set(layer.materializations(forced)) == {"a"}
    assert layer.statuses() == {"a": "completed"}


def test_a_recovery_that_fails_is_due_again_in_an_hour_and_stays_a_dead_letter(
    layer: Layer, api: LoopbackAPI
) -> None:
    _add_calls_behind_dagsters_back(layer, "a")
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
        " error_kind = 'transient', last_error = 'away', next_attempt_at = now()"
    )
    api.faults = [Fault(status=400, param="input")]
    _, metadata = failure_of(layer.run("recover_dead_letters", "embed_dead_letters"))
    assert metadata["failed_recordings"] == ["a"]
    assert layer.rows(
        "SELECT status, recoveries, next_attempt_at > now() + interval '59 minutes'"
        " FROM embedding_queue"
    ) == [("dead_letter", 1, True)]


def test_the_sweep_takes_what_a_deleted_call_left_behind_once_it_is_a_day_old(
    layer: Layer,
) -> None:
    _add_calls_behind_dagsters_back(layer, *"ab")
    layer.worker()
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    layer.worker()
    vectors = layer.rows("SELECT count(*) FROM chunk_embeddings")
    sweep = defs.resolve_job_def("sweep_vectors")
    assert sweep.execute_in_process(instance=layer.instance).success
    assert layer.rows("SELECT count(*) FROM chunk_embeddings") == vectors
    layer.execute("UPDATE chunk_embeddings SET created_at = created_at - interval '25 hours'")
    assert sweep.execute_in_process(instance=layer.instance).success
    assert layer.rows("SELECT content_hash FROM chunk_embeddings ORDER BY 1") == layer.rows(
        "SELECT content_hash FROM transcript_chunks ORDER BY 1"
    )
