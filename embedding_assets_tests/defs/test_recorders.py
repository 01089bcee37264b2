"""The recorder's tables as assets: materialized where a recorder is synchronised."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

from embedding_assets.definitions import build_definitions
from embedding_assets.defs.assets.sources import fathom_calls, fathom_transcripts
from embedding_assets.health.system import system_health
from embedding_assets.settings import Settings
from embedding_assets_tests.defs.conftest import Layer
from embedding_assets_tests.loopback_fathom import LoopbackFathom

WORDS = "The walrus eats clams. The heron stands in the water."


@pytest.fixture
def fathom(environment: pytest.MonkeyPatch) -> Iterator[LoopbackFathom]:
    with LoopbackFathom(["ann-secret", "bob-secret"]) as fathom:
        environment.setenv("FATHOM_API_KEYS", "ann=ann-secret bob=bob-secret")
        environment.setenv("FATHOM_BASE_URL", fathom.base_url)
        environment.setenv("FATHOM_SINCE", f"{datetime.now(UTC) - timedelta(days=30):%Y-%m-%d}")
        yield fathom


def sync(layer: Layer) -> dg.ExecuteInProcessResult:
    job = build_definitions(Settings()).resolve_job_def("sync_fathom")
    return job.execute_in_process(instance=layer.instance, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [
        event.materialization
        for event in result.all_events
        if event.is_step_materialization and event.asset_key is not None
    ]


def test_with_keys_the_tables_are_assets_that_stay_fresh(fathom: LoopbackFathom) -> None:
    repository = build_definitions(Settings()).get_repository_def()
    for spec in (fathom_calls, fathom_transcripts):
        node = repository.asset_graph.get(spec.key)
        assert node.is_materializable
        assert node.freshness_policy is not None
        assert node.description == spec.description
    (schedule,) = [each for each in repository.schedule_defs if each.name == "sync_fathom"]
    assert schedule.cron_schedule == "*/15 * * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert "ann-secret" not in serialize_value(RepositorySnap.from_def(repository))
    assert "ann-secret" not in repr(Settings())


def test_what_fathom_has_is_read_embedded_and_told(layer: Layer, fathom: LoopbackFathom) -> None:
    fathom.add("100", datetime.now(UTC) - timedelta(hours=2), WORDS)
    fathom.add("101", datetime.now(UTC) - timedelta(days=2), WORDS, recording_id=None)
    result = sync(layer)
    assert result.success
    events = {each.asset_key.to_user_string(): each for each in materialized(result)}
    assert set(events) == {"fathom_calls", "fathom_transcripts"}
    figures = {name: each.value for name, each in events["fathom_calls"].metadata.items()}
    assert (figures["added_or_changed"], figures["unreadable"]) == (1, 1)
    assert layer.statuses() == {"100": "pending"}
    assert layer.worker().success
    assert layer.statuses() == {"100": "completed"}
    (found,) = [f for f in system_health(Settings()).findings if f.name == "recorder_sync"]
    assert "1 meeting could not be read" in found.message
    assert found.items[0].startswith("ann: the recorder has 2, here are 1;")


def test_a_refused_key_stops_none_of_the_others_and_all_of_them_fail_the_run(
    layer: Layer, fathom: LoopbackFathom
) -> None:
    fathom.add("100", datetime.now(UTC) - timedelta(hours=2), WORDS)
    fathom.refused = {"bob-secret"}
    result = sync(layer)
    assert result.success
    assert materialized(result)[0].metadata["refused_keys"].value == 1
    fathom.refused = {"ann-secret", "bob-secret"}
    result = sync(layer)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    told = str(failure.step_failure_data)
    assert "key ann: Fathom refuses the key (401)" in told
    assert "secret" not in told


def test_a_run_that_did_not_come_to_the_end_materializes_nothing(
    layer: Layer, fathom: LoopbackFathom
) -> None:
    fathom.add("100", datetime.now(UTC) - timedelta(hours=2), WORDS)
    fathom.failures = [404] * 10
    result = sync(layer)
    assert (result.success, materialized(result)) == (True, [])


def test_a_setting_that_is_wrong_names_itself(
    layer: Layer, fathom: LoopbackFathom, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("FATHOM_API_KEYS", "topsecret")
    result = sync(layer)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "FATHOM_API_KEYS: part 1" in str(failure.step_failure_data)
    assert "topsecret" not in str(failure.step_failure_data)
    (found,) = [f for f in system_health(Settings()).findings if f.name == "configuration"]
    assert "FATHOM_API_KEYS: part 1" in found.message
