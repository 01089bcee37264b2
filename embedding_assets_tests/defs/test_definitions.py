import os

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

from embedding_assets.definitions import defs
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.defs.schedules import build_schedules
from embedding_assets.settings import Settings

ASSETS = {
    "fathom_calls",
    "fathom_transcripts",
    "transcript_chunks",
    "vector_index",
    "embedding_health",
    "retrieval_quality",
}
CHECKS = {
    "configuration",
    "dead_letters",
    "pending_backlog",
    "recent_activity",
    "completion_rate",
    "stale_claims",
    "chunk_integrity",
    "chunk_sizes",
    "search_words",
    "budget",
    "recorder_sync",
    "retention",
    "disk",
    "orchestration",
    "above_floor",
}
JOBS = {
    "embed_recordings",
    "embed_recording",
    "embed_in_batches",
    "recover_dead_letters",
    "sweep_vectors",
    "maintain_vector_index",
    "prune_runs",
    "check_health",
    "count_words",
    "snapshot_health",
    "send_alert",
}
SCHEDULES = {
    "embed_pending": "embed_recordings",
    "embed_in_batches": "embed_in_batches",
    "recover_dead_letters": "recover_dead_letters",
    "sweep_vectors": "sweep_vectors",
    "maintain_vector_index": "maintain_vector_index",
    "prune_runs": "prune_runs",
    "check_health": "check_health",
    "count_words": "count_words",
    "snapshot_health": "snapshot_health",
}
SENSORS = {
    "discover_recordings",
    "relaunch_failed_recordings",
    "relaunch_cancelled_recordings",
    "report_dead_runs",
    "alert_on_health_change",
}


def test_the_definitions_load_and_can_be_run() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_names_are_those_that_the_ui_and_the_documentation_use() -> None:
    repository = defs.get_repository_def()
    assert {key.to_user_string() for key in repository.assets_defs_by_key} >= {"transcript_chunks"}
    assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == ASSETS
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == JOBS
    checks = {key.name for key in repository.asset_graph.asset_check_keys}
    assert checks == CHECKS
    assert {s.name: s.job_name for s in repository.schedule_defs} == SCHEDULES
    assert {sensor.name for sensor in repository.sensor_defs} == SENSORS


def test_everything_has_a_description() -> None:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    descriptions = {
        key.to_user_string(): graph.get(key).description for key in graph.get_all_asset_keys()
    }
    descriptions |= {schedule.name: schedule.description for schedule in repository.schedule_defs}
    descriptions |= {sensor.name: sensor.description for sensor in repository.sensor_defs}
    for key in graph.asset_check_keys:
        descriptions[f"check {key.name}"] = graph.get(key).description
    for name in JOBS:
        descriptions[f"job {name}"] = repository.get_job(name).description
    assert len(descriptions) >= len(ASSETS | SENSORS | CHECKS) + len(SCHEDULES) + len(JOBS)
    assert [name for name, text in descriptions.items() if not text] == []


def test_schedules_and_sensors_run_without_being_switched_on() -> None:
    repository = defs.get_repository_def()
    states = {part.default_status.value for part in repository.schedule_defs}
    states |= {part.default_status.value for part in repository.sensor_defs}
    assert states == {"RUNNING"}


def test_the_asset_is_partitioned_by_recording_and_launched_in_ranges_of_fifty() -> None:
    asset = defs.get_assets_def("transcript_chunks")
    assert isinstance(asset.partitions_def, dg.DynamicPartitionsDefinition)
    assert asset.partitions_def.name == RECORDINGS
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(max_partitions_per_run=50)
    sources = {dg.AssetKey("fathom_calls"), dg.AssetKey("fathom_transcripts")}
    assert asset.asset_deps[asset.key] == sources


@pytest.mark.parametrize(
    ("setting", "schedule", "default"),
    [
        ("EMBED_PENDING_CRON", "embed_pending", "*/5 * * * *"),
        ("RECOVER_DEAD_LETTERS_CRON", "recover_dead_letters", "0 */6 * * *"),
        ("SWEEP_VECTORS_CRON", "sweep_vectors", "17 3 * * *"),
        ("CHECK_HEALTH_CRON", "check_health", "*/10 * * * *"),
        ("EMBED_IN_BATCHES_CRON", "embed_in_batches", "*/10 * * * *"),
        ("MAINTAIN_VECTOR_INDEX_CRON", "maintain_vector_index", "* * * * *"),
        ("COUNT_WORDS_CRON", "count_words", "*/30 * * * *"),
        ("SNAPSHOT_HEALTH_CRON", "snapshot_health", "0 * * * *"),
    ],
)
def test_the_times_of_the_schedules_are_settings(
    environment: pytest.MonkeyPatch, setting: str, schedule: str, default: str
) -> None:
    def cron() -> str:
        (found,) = [each for each in build_schedules(Settings()) if each.name == schedule]
        assert isinstance(found.cron_schedule, str)
        return found.cron_schedule

    environment.delenv(setting, raising=False)
    assert cron() == default
    environment.setenv(setting, "1 2 * * *")
    assert cron() == "1 2 * * *"


def test_no_secret_is_in_what_dagster_shows(environment: pytest.MonkeyPatch) -> None:
    # All that the code server tells the web server, the resource and its settings included.
    shown = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert "EmbeddingEngine" in shown
    for secret in ("sk-very-secret", os.environ["DATABASE_URL"]):
        assert secret not in shown
        assert secret not in repr(Settings())
