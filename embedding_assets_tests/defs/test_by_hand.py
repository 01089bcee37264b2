"""What a person changes in Dagster by hand is no harm: the queue is the truth."""

from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import Layer, Tick
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI


def test_wiped_materializations_come_back_at_no_cost(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))
    assert layer.worker().success
    assert layer.materialized() == {"a", "b"}
    asked = api.stats.requests
    layer.instance.wipe_assets([TRANSCRIPT_CHUNKS])
    assert layer.materialized() == set()
    assert layer.worker().success  # for it, nothing is due
    assert layer.materialized() == set()
    assert layer.materialize("a", "b").success  # as a backfill of what is missing
    assert layer.materialized() == {"a", "b"}
    assert api.stats.requests == asked


def test_a_partition_deleted_by_hand_comes_back_with_what_it_shows(
    layer: Layer, tick: Tick, api: LoopbackAPI
) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))
    assert layer.worker().success
    layer.instance.delete_dynamic_partition(RECORDINGS, "a")
    (request,) = tick("discover_recordings").dynamic_partitions_requests
    assert request.partition_keys == ["a"]
    layer.instance.add_dynamic_partitions(RECORDINGS, request.partition_keys)
    assert layer.partition_states() == {"a": "MATERIALIZED", "b": "MATERIALIZED"}
    assert layer.statuses() == {"a": "completed", "b": "completed"}


def test_a_partition_deleted_while_its_recording_is_worked_on_is_no_failure(
    layer: Layer, api: LoopbackAPI
) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))

    def delete(_: object) -> bool:
        layer.instance.delete_dynamic_partition(RECORDINGS, "a")
        return False

    api.faults = [Fault(when=delete)]
    assert layer.worker().success
    assert layer.statuses() == {"a": "completed", "b": "completed"}
    assert layer.partition_states() == {"a": "MATERIALIZED", "b": "MATERIALIZED"}
