"""Sensors and schedules: what a tick asks for, as Dagster's daemon evaluates it."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from embedding_assets.definitions import defs
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.defs.sensors import MOST_KEYS_A_TICK
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import Layer, Tick


def _add_many_calls(layer: Layer, count: int) -> None:
    layer.execute(
        "INSERT INTO fathom_calls (recording_id, title)"
        " SELECT 'r' || to_char(n, 'FM00000'), 'A call' FROM generate_series(1, %s) AS n",
        count,
    )


# discover_recordings


def _partition_changes(data: Any) -> tuple[list[str], list[str]]:
    added: list[str] = []
    deleted: list[str] = []
    for request in data.dynamic_partitions_requests or []:
        assert request.partitions_def_name == RECORDINGS
        assert len(request.partition_keys) <= MOST_KEYS_A_TICK
        is_addition = isinstance(request, dg.AddDynamicPartitionsRequest)
        (added if is_addition else deleted).extend(request.partition_keys)
    return added, deleted


def test_new_recordings_become_partitions_and_a_worker_is_started(layer: Layer, tick: Tick) -> None:
    _add_many_calls(layer, 3)
    data = tick("discover_recordings")
    assert _partition_changes(data) == (["r00001", "r00002", "r00003"], [])
    (request,) = data.run_requests
    assert request.job_name == "embed_recordings"


def test_deleted_recordings_lose_their_partitions_but_not_under_a_live_claim(
    layer: Layer, tick: Tick
) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3), c=talk("c", 3))
    layer.hold("alive", "b", lease=timedelta(minutes=5))
    layer.execute("DELETE FROM fathom_calls WHERE recording_id IN ('a', 'b')")
    assert _partition_changes(tick("discover_recordings")) == ([], ["a"])


def test_a_tick_asks_for_a_bounded_number_of_partitions(layer: Layer, tick: Tick) -> None:
    _add_many_calls(layer, MOST_KEYS_A_TICK + 1)
    added, _ = _partition_changes(tick("discover_recordings"))
    assert len(set(added)) == len(added) == MOST_KEYS_A_TICK


def test_a_tick_deletes_a_bounded_number_of_partitions(layer: Layer, tick: Tick) -> None:
    keys = [f"gone{n}" for n in range(MOST_KEYS_A_TICK + 1)]
    layer.instance.add_dynamic_partitions(RECORDINGS, keys)
    _, deleted = _partition_changes(tick("discover_recordings"))
    assert len(set(deleted)) == len(deleted) == MOST_KEYS_A_TICK


def test_nothing_is_asked_for_when_all_is_done(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.worker()
    data = tick("discover_recordings")
    assert data.run_requests == []
    assert not data.dynamic_partitions_requests
    assert "none waits for a worker" in data.skip_message


def test_an_edit_starts_a_worker(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.worker()
    layer.execute("UPDATE fathom_transcripts SET edited_text = 'corrected' WHERE position = 1")
    assert len(tick("discover_recordings").run_requests) == 1


def test_no_worker_is_started_beside_a_living_one(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.started_run()
    assert tick("discover_recordings").run_requests == []


def test_a_worker_that_has_not_started_yet_counts(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.instance.create_run_for_job(defs.resolve_job_def("embed_recordings"))
    assert tick("discover_recordings").run_requests == []


def test_a_dead_worker_does_not_stand_in_the_way(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))
    dead = layer.started_run(hours_ago=1)
    layer.hold(dead.run_id, "a", lease=timedelta(seconds=0))
    assert len(tick("discover_recordings").run_requests) == 1


def test_an_old_worker_with_a_lease_is_alive(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))
    old = layer.started_run(hours_ago=2)
    layer.hold(old.run_id, "a", lease=timedelta(minutes=5))
    assert tick("discover_recordings").run_requests == []


# embed_pending


@pytest.mark.parametrize(("recordings", "workers"), [(1, 1), (100, 1), (150, 2), (1_000, 3)])
def test_workers_are_started_for_what_is_due_up_to_the_set_number(
    layer: Layer, scheduled: Tick, recordings: int, workers: int
) -> None:
    layer.environment.setenv("MAX_WORKERS", "3")
    _add_many_calls(layer, recordings)
    data = scheduled("embed_pending")
    assert [request.job_name for request in data.run_requests] == ["embed_recordings"] * workers
    assert len({request.run_key for request in data.run_requests}) == workers


def test_living_workers_are_counted_and_dead_ones_are_not(layer: Layer, scheduled: Tick) -> None:
    layer.environment.setenv("MAX_WORKERS", "3")
    _add_many_calls(layer, 1_000)
    layer.started_run()
    layer.started_run(hours_ago=1)
    assert len(scheduled("embed_pending").run_requests) == 2


def test_runs_of_other_jobs_are_no_workers(layer: Layer, scheduled: Tick) -> None:
    _add_many_calls(layer, 1)
    layer.started_run("recover_dead_letters")
    assert len(scheduled("embed_pending").run_requests) == 1


def test_nothing_is_started_for_what_is_not_due_yet(layer: Layer, scheduled: Tick) -> None:
    _add_many_calls(layer, 3)
    layer.execute(
        "UPDATE embedding_queue SET status = 'failed', attempts = 1, error_kind = 'transient',"
        " last_error = 'away', next_attempt_at = now() + interval '30 seconds'"
    )
    data = scheduled("embed_pending")
    assert data.run_requests == []
    assert data.skip_message == "0 recordings due, 0 workers alive"


def test_what_a_dead_run_holds_is_due(layer: Layer, scheduled: Tick) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.hold("dead", "a", lease=timedelta(seconds=0))
    assert len(scheduled("embed_pending").run_requests) == 1


# recover_dead_letters

DEAD_LETTER = (
    "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, error_kind = 'transient',"
    " last_error = 'away', recoveries = %s, next_attempt_at = now() + %s * interval '1 minute'"
)


@pytest.mark.parametrize(
    ("recoveries", "minutes", "runs"), [(0, -1, 1), (2, -1, 1), (3, -1, 0), (0, 5, 0)]
)
def test_dead_letters_are_recovered_when_due_and_a_limited_number_of_times(
    layer: Layer, scheduled: Tick, recoveries: int, minutes: int, runs: int
) -> None:
    _add_many_calls(layer, 1)
    layer.execute(DEAD_LETTER, recoveries, minutes)
    data = scheduled("recover_dead_letters")
    assert len(data.run_requests) == runs
    assert (data.skip_message is None) == bool(runs)
