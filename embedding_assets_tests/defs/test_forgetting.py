"""What Dagster keeps of a call goes with it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from embedding_assets.definitions import build_definitions
from embedding_assets.defs.forgetting import forget_events
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.health.system import system_health
from embedding_assets.settings import Settings
from embedding_assets_tests.defs.conftest import MARKER, Layer


def events(layer: Layer) -> str:
    """All that Dagster has written down."""
    storage = layer.instance.event_log_storage
    with storage.index_connection() as connection:  # type: ignore[attr-defined]
        rows = connection.exec_driver_sql("SELECT event, partition FROM event_logs").fetchall()
        tags = connection.exec_driver_sql("SELECT * FROM asset_event_tags").fetchall()
    with layer.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        runs = connection.exec_driver_sql("SELECT run_body, partition FROM runs").fetchall()
    return str([*rows, *tags, *runs])


def test_partitions_runs_and_events_that_name_a_call_are_deleted(layer: Layer) -> None:
    layer.add_calls(walrus_7=["The walrus eats clams."], heron_8=["It stands in the water."])
    # One that fails is in a log line, as JSON writes its id.
    layer.add_calls(**{"zebra_9": [f"This is {MARKER}."], 'Gespräch "9"': [f"So {MARKER}."]})
    layer.materialize("walrus_7")
    layer.worker()
    assert "walrus_7" in events(layer)
    counts, not_reached = forget_events(layer.instance, "walrus_7")
    for name in ("zebra_9", 'Gespräch "9"'):
        more, _ = forget_events(layer.instance, name)
        counts.update(more)
    assert counts["dagster_runs"] == 1
    assert counts["dagster_partitions"] == 3
    assert not_reached
    left = events(layer)
    assert "walrus_7" not in left
    assert "zebra_9" not in left
    assert "Gespr" not in left
    assert "heron_8" in left
    assert layer.instance.get_dynamic_partitions(RECORDINGS) == ["heron_8"]


def test_what_is_too_old_is_forgotten_by_schedule_and_the_check_says_what_is_due(
    layer: Layer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("RETENTION_DAYS", "30")
    layer.add_calls(old=["The walrus eats clams."], new=["It stands in the water."])
    layer.execute("UPDATE fathom_calls SET recorded_at = now() - interval '2 days'")
    layer.execute(
        "UPDATE fathom_calls SET recorded_at = now() - interval '31 days'"
        " WHERE recording_id = 'old'"
    )
    layer.worker()

    def check() -> tuple[str, str]:
        (found,) = [f for f in system_health(Settings()).findings if f.name == "retention"]
        return str(found.severity), found.message

    assert check()[0] == "healthy"
    assert "1 call older than 30 days" in check()[1]
    layer.execute(
        "UPDATE fathom_calls SET recorded_at = recorded_at - interval '2 days'"
        " WHERE recording_id = 'old'"
    )
    assert check()[0] == "warning"
    definitions = build_definitions(Settings())
    (schedule,) = [
        each
        for each in definitions.get_repository_def().schedule_defs
        if each.name == "forget_old_calls"
    ]
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    job = definitions.resolve_job_def("forget_old_calls")
    assert job.execute_in_process(instance=layer.instance).success
    assert layer.statuses() == {"new": "completed"}
    assert check() == ("healthy", "no call is older than 30 days")
    (proof,) = layer.rows("SELECT forgotten_at, request FROM forgettings")
    assert proof.request["recording_ids"] == ["old"]
    assert proof.forgotten_at > datetime.now(UTC) - timedelta(minutes=5)
    assert "old" not in layer.instance.get_dynamic_partitions(RECORDINGS)
