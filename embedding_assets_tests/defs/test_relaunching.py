"""What the failure sensors launch in place of a run that ended badly."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from embedding_assets.defs.launching import RELAUNCH_OF_TAG
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.defs.sensors import MOST_RELAUNCHED
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    Layer,
    Tick,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

FAILED_RUNS = "relaunch_failed_recordings"
CANCELLED_RUNS = "relaunch_cancelled_recordings"
PARTITION = "dagster/partition"

Requests = Callable[[], list[dg.RunRequest]]


class Sensor:
    """A run status sensor with its cursor, as the daemon keeps it from tick to tick."""

    def __init__(self, name: str, tick: Tick) -> None:
        self._name = name
        self._tick = tick
        self._cursor: str = tick(name).cursor  # the first tick only sets it

    def requests(self) -> list[dg.RunRequest]:
        """What the sensor asks for, for all runs that ended since; one tick may take one run."""
        requests: list[dg.RunRequest] = []
        before = ""
        while self._cursor != before:
            before = self._cursor
            data: Any = self._tick(self._name, self._cursor)
            self._cursor = data.cursor
            assert all(reaction.error is None for reaction in data.dagster_run_reactions)
            requests.extend(data.run_requests or [])
        return requests


@pytest.fixture
def sensor(tick: Tick) -> Sensor:
    return Sensor(FAILED_RUNS, tick)


def _calls(*names: str, bad: str = "") -> dict[str, list[str]]:
    """Calls, of which the API refuses the bad ones while told so."""
    return {name: talk(name, 9) + ([MARKER] if name in bad else []) for name in names}


def _run_again(layer: Layer, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """What the daemon would launch."""
    (config,) = [step["config"] for step in request.run_config["ops"].values()]
    if request.job_name == "embed_recordings":
        return layer.worker(**config)
    assert request.job_name == "embed_recording"
    return layer.materialize(request.tags[PARTITION], **config)


def test_only_what_a_range_left_undone_is_launched_again_as_its_partitions(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls(*"abcde", bad="bd"))
    api.faults = [refusing_the_marker()]
    failed = layer.materialize("a", "e")
    requests = sensor.requests()
    assert [request.tags[PARTITION] for request in requests] == ["b", "d"]
    assert {request.job_name for request in requests} == {"embed_recording"}
    assert {request.tags[RELAUNCH_OF_TAG] for request in requests} == {failed.run_id}
    assert [request.run_key for request in requests] == [
        f"{failed.run_id}:b",
        f"{failed.run_id}:d",
    ]

    api.faults = []
    for request in requests:
        (metadata,) = layer.materializations(_run_again(layer, request)).values()
        assert metadata["lane"] == "small_batch"
    assert set(layer.partition_states().values()) == {"MATERIALIZED"}
    assert api.stats.sent_twice == []


def test_a_failed_partition_is_launched_again(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="a"))
    api.faults = [refusing_the_marker()]
    layer.materialize("a")
    (request,) = sensor.requests()
    assert request.tags[PARTITION] == "a"


def test_what_a_worker_failed_is_launched_again_as_partitions(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls(*"abcd", bad="c"))
    api.faults = [refusing_the_marker()]
    layer.worker()
    (request,) = sensor.requests()
    assert request.job_name == "embed_recording"
    assert request.tags[PARTITION] == "c"


def test_more_than_ten_are_launched_again_as_one_worker(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    names = [f"r{n:02}" for n in range(13)]
    layer.add_calls(**_calls(*names, bad="r00 r01 r02 r03 r04 r05 r06 r07 r08 r09 r10"))
    api.faults = [refusing_the_marker()]
    failed = layer.worker()
    (request,) = sensor.requests()
    assert request.job_name == "embed_recordings"
    assert request.run_key == failed.run_id
    assert request.tags == {**request.tags, RELAUNCH_OF_TAG: failed.run_id}
    api.faults = []
    found = layer.materializations(_run_again(layer, request))
    assert set(found) == set(names[:11])
    assert {metadata["lane"] for metadata in found.values()} == {"small_batch"}


def test_a_failed_run_is_dealt_with_once(layer: Layer, api: LoopbackAPI, sensor: Sensor) -> None:
    layer.add_calls(**_calls("a", bad="a"))
    api.faults = [refusing_the_marker()]
    layer.worker()
    assert len(sensor.requests()) == 1
    assert sensor.requests() == []


def test_a_relaunch_that_fails_is_not_launched_again(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", bad="a"))
    api.faults = [refusing_the_marker()]
    layer.materialize("a")
    (request,) = sensor.requests()
    job = layer.job("embed_recording")
    again = job.execute_in_process(
        instance=layer.instance,
        partition_key="a",
        run_config=request.run_config,
        tags={RELAUNCH_OF_TAG: request.tags[RELAUNCH_OF_TAG]},
        raise_on_error=False,
    )
    assert not again.success
    assert sensor.requests() == []
    assert layer.statuses() == {"a": "failed"}


def test_nothing_is_launched_again_after_a_configuration_error(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b"))
    api.faults = [Fault(status=401)]
    assert not layer.worker().success
    assert not layer.materialize("a", "b").success
    layer.environment.setenv("OPENAI_API_KEY", "")
    assert not layer.materialize("a").success
    assert sensor.requests() == []


def test_nothing_is_launched_again_after_a_failed_recovery(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", bad="a"))
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
        " error_kind = 'transient', last_error = 'away', next_attempt_at = now()"
    )
    api.faults = [refusing_the_marker()]
    assert not layer.run("recover_dead_letters", "embed_dead_letters").success
    assert sensor.requests() == []


def test_a_dead_letter_is_not_launched_again(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="ab"))
    layer.execute("UPDATE embedding_queue SET attempts = 2 WHERE recording_id = 'a'")
    api.faults = [refusing_the_marker()]
    layer.worker()
    assert layer.statuses() == {"a": "dead_letter", "b": "failed"}
    assert [request.tags[PARTITION] for request in sensor.requests()] == ["b"]


def test_what_succeeded_since_is_not_launched_again(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="ab"))
    api.faults = [refusing_the_marker()]
    layer.worker()
    api.faults = []
    layer.materialize("a")
    assert [request.tags[PARTITION] for request in sensor.requests()] == ["b"]


def test_what_a_killed_worker_holds_is_launched_again_and_freed(
    layer: Layer, sensor: Sensor
) -> None:
    layer.add_calls(**_calls(*"abc"))
    killed = layer.started_run()
    layer.hold(killed.run_id, "a", "b", lease=timedelta(minutes=5))
    layer.instance.report_run_failed(killed)
    requests = sensor.requests()
    assert [request.tags[PARTITION] for request in requests] == ["a", "b"]
    for request in requests:
        assert _run_again(layer, request).success
    assert layer.statuses() == {"a": "completed", "b": "completed", "c": "pending"}


def test_what_another_run_took_over_is_left_to_it(layer: Layer, sensor: Sensor) -> None:
    layer.add_calls(**_calls(*"ab"))
    killed = layer.started_run()
    layer.hold(killed.run_id, "a", "b", lease=timedelta(seconds=0))
    layer.hold("alive", "a", lease=timedelta(minutes=5))
    layer.instance.report_run_failed(killed)
    assert [request.tags[PARTITION] for request in sensor.requests()] == ["b"]


def test_a_recording_that_was_deleted_since_does_not_stop_the_sensor(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="ab"))
    api.faults = [refusing_the_marker()]
    layer.worker()
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    layer.instance.delete_dynamic_partition(RECORDINGS, "a")
    assert [request.tags[PARTITION] for request in sensor.requests()] == ["b"]


def test_a_partition_that_was_deleted_since_does_not_stop_the_sensor(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="ab"))
    api.faults = [refusing_the_marker()]
    layer.materialize("a")
    layer.materialize("b")
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    layer.instance.delete_dynamic_partition(RECORDINGS, "a")
    assert [request.tags[PARTITION] for request in sensor.requests()] == ["b"]


def test_a_cancelled_run_of_partitions_is_launched_again_without_what_is_done(
    layer: Layer, tick: Tick
) -> None:
    sensor = Sensor(CANCELLED_RUNS, tick)
    layer.add_calls(**_calls("a", "b"))
    assert layer.materialize("a").success
    cancelled = [
        layer.instance.create_run_for_job(layer.job("embed_recording"), tags={PARTITION: key})
        for key in ("a", "b")
    ]
    for run in cancelled:
        layer.instance.report_run_canceled(run)
    (request,) = sensor.requests()
    assert request.tags[PARTITION] == "b"
    assert request.run_key == f"{cancelled[1].run_id}:b"


def test_a_storm_of_failures_is_left_to_the_queue(
    layer: Layer, api: LoopbackAPI, sensor: Sensor
) -> None:
    layer.add_calls(**_calls("a", "b", bad="ab"))
    for _ in range(MOST_RELAUNCHED):
        layer.instance.create_run_for_job(
            layer.job("embed_recording"),
            tags={PARTITION: "b", RELAUNCH_OF_TAG: "x", "dagster/sensor_name": FAILED_RUNS},
        )
    api.faults = [refusing_the_marker()]
    assert not layer.materialize("a").success
    assert sensor.requests() == []


def test_other_jobs_are_none_of_the_sensors_business(layer: Layer, sensor: Sensor) -> None:
    layer.add_calls(**_calls("a"))
    layer.instance.report_run_failed(layer.started_run("sweep_vectors"))
    assert sensor.requests() == []
