"""Old runs that only looked at the system go; what Dagster shows of recordings stays."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from embedding_assets.defs.retention import prune_runs
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import Layer


def _run(layer: Layer, job: str) -> str:
    return layer.job(job).execute_in_process(instance=layer.instance).run_id


def _age(layer: Layer, *run_ids: str, days: int = 40) -> None:
    storage: Any = layer.instance.run_storage
    with storage.connect() as connection:
        for run_id in run_ids:
            connection.exec_driver_sql(
                "UPDATE runs SET create_timestamp = %s WHERE run_id = %s",
                (datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days), run_id),
            )


def _runs(layer: Layer) -> set[str]:
    return {run.run_id for run in layer.instance.get_runs()}


def test_old_runs_that_only_looked_are_deleted_with_their_events(layer: Layer) -> None:
    old, older, newest = (_run(layer, "check_health") for _ in range(3))
    _age(layer, old, older)
    assert layer.job("prune_runs").execute_in_process(instance=layer.instance).success
    assert {old, older} & _runs(layer) == set()
    assert newest in _runs(layer)
    assert layer.instance.all_logs(old) == []


def test_the_newest_run_stays_however_old(layer: Layer) -> None:
    (only,) = [_run(layer, "snapshot_health")]
    _age(layer, only)
    assert prune_runs(layer.instance, datetime.now(UTC)) == 0
    assert only in _runs(layer)


def test_a_run_that_is_not_finished_stays(layer: Layer) -> None:
    started = layer.started_run("check_health").run_id
    _run(layer, "check_health")
    _age(layer, started)
    prune_runs(layer.instance, datetime.now(UTC) - timedelta(days=30))
    assert started in _runs(layer)


def test_runs_of_recordings_stay_and_their_partitions_materialized(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 3))
    worker = layer.worker().run_id
    layer.worker()
    _age(layer, worker)
    prune_runs(layer.instance, datetime.now(UTC) - timedelta(days=30))
    assert worker in _runs(layer)
    assert layer.materialized() == {"a"}
    assert layer.instance.get_latest_materialization_event(TRANSCRIPT_CHUNKS) is not None


def test_no_more_than_the_days_that_are_set(layer: Layer) -> None:
    layer.environment.setenv("KEEP_RUNS_DAYS", "50")
    old = _run(layer, "check_health")
    _run(layer, "check_health")
    _age(layer, old)
    layer.job("prune_runs").execute_in_process(instance=layer.instance)
    assert old in _runs(layer)
    assert dg.DagsterRunStatus.SUCCESS is layer.dagster_run(old).status
