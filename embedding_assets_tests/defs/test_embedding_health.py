"""The snapshot of health: numbers that Dagster plots, and the picture of the last days."""

import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from embedding_assets.definitions import defs
from embedding_assets.defs.assets.embedding_health import EMBEDDING_HEALTH, snapshots
from embedding_assets.health.numbers import attempts_by_hour
from embedding_assets.health.statements import sql
from embedding_assets.health.trends import STATES
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    Layer,
    failure_of,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import LoopbackAPI

MOST_A_TEST_TAKES = 5
PREFIX = "![the last days](data:image/png;base64,"
NUMBERS = {
    *STATES,
    "unqueued",
    "due",
    "stale_claims",
    "waiting_for_person",
    "chunks",
    "broken",
    "published_last_hour",
    "embedded_last_hour",
    "failures_last_hour",
    "requests_today",
    "tokens_today",
    "cost_today_usd",
    "completion_percent",
    "severity",
}


def snapshot(layer: Layer) -> dict[str, dg.MetadataValue]:
    """A run of the job; the metadata as the event log has it."""
    result = layer.job("snapshot_health").execute_in_process(instance=layer.instance)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == EMBEDDING_HEALTH
    logged = layer.instance.get_latest_materialization_event(EMBEDDING_HEALTH)
    assert logged is not None
    assert logged.run_id == result.run_id
    assert logged.asset_materialization is not None
    return dict(logged.asset_materialization.metadata)


def picture(metadata: dict[str, dg.MetadataValue]) -> bytes:
    """The PNG, out of the Markdown that the page shows."""
    trends = metadata["trends"]
    assert isinstance(trends, dg.MarkdownMetadataValue)
    assert trends.value is not None
    assert trends.value.startswith(PREFIX)
    return base64.b64decode(trends.value.removeprefix(PREFIX).removesuffix(")"), validate=True)


def test_the_snapshot_holds_the_numbers_as_dagster_plots_them(
    layer: Layer, api: LoopbackAPI
) -> None:
    api.faults = [refusing_the_marker()]
    layer.add_calls(a=talk("a", 30), b=talk("b", 3), bad=[MARKER])
    layer.worker()
    layer.execute("INSERT INTO fathom_calls (recording_id, title) VALUES ('later', 'A call')")
    metadata = snapshot(layer)
    numeric = {
        name: value.value
        for name, value in metadata.items()
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
    }
    assert numeric.keys() == NUMBERS
    assert {state: numeric[state] for state in STATES} == {
        "pending": 1,
        "processing": 0,
        "failed": 1,
        "dead_letter": 0,
        "completed": 2,
    }
    ((embedded, tokens, cost),) = layer.rows(
        "SELECT sum(embedded)::int AS embedded, sum(tokens)::int AS tokens,"
        " sum(cost_usd)::float8 AS cost FROM embedding_attempts"
    )
    ((chunks,),) = layer.rows("SELECT count(*) FROM transcript_chunks")
    assert chunks > 1
    assert (numeric["chunks"], numeric["embedded_last_hour"]) == (chunks, embedded)
    assert numeric["tokens_today"] == tokens > 0
    assert numeric["cost_today_usd"] == pytest.approx(cost)
    assert numeric["completion_percent"] == pytest.approx(66.667)
    assert numeric["failures_last_hour"] == 1
    assert numeric["severity"] == 1
    assert metadata["status"].value == "warning"
    assert "warning: completion_rate: 66.6" in str(metadata["reasons"].value)
    assert MARKER not in str(metadata)


def test_a_healthy_system_says_so(layer: Layer) -> None:
    metadata = snapshot(layer)
    assert metadata["status"].value == "healthy"
    assert metadata["severity"] == dg.MetadataValue.int(0)
    assert metadata["reasons"].value == "none"


def test_the_picture_is_there_from_the_first_snapshot_on_and_small(layer: Layer) -> None:
    first = picture(snapshot(layer))
    with Image.open(io.BytesIO(first)) as image:
        image.load()
        assert image.format == "PNG"
    assert len(first) < 30_000
    layer.add_calls(a=talk("a", 6))
    layer.worker()
    assert picture(snapshot(layer)) != first


def test_the_list_of_fonts_is_kept_in_the_home(layer: Layer, tmp_path: Path) -> None:
    layer.environment.setenv("MPLCONFIGDIR", "")  # put back as it was, after the test
    layer.environment.delenv("MPLCONFIGDIR")
    snapshot(layer)
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "matplotlib")


def test_earlier_snapshots_are_read_back_from_the_event_log(layer: Layer) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    counted = []
    for recording_id in ("a", "b", "c"):
        layer.add_calls(**{recording_id: talk(recording_id, 3)})
        metadata = snapshot(layer)
        counted.append({state: metadata[state].value for state in STATES})
    assert [each["pending"] for each in counted] == [1, 2, 3]
    found = snapshots(layer.instance, before, STATES)
    assert [found[moment] for moment in sorted(found)] == counted
    assert snapshots(layer.instance, datetime.now(UTC), STATES) == {}


def test_as_many_snapshots_are_read_as_are_shown(layer: Layer) -> None:
    layer.environment.setattr(
        "embedding_assets.defs.assets.embedding_health.MOST_SNAPSHOTS", MOST_A_TEST_TAKES
    )
    for n in range(MOST_A_TEST_TAKES + 3):
        metadata: dict[str, Any] = {**dict.fromkeys(STATES, 0), "pending": n}
        layer.instance.report_runless_asset_event(
            dg.AssetMaterialization(EMBEDDING_HEALTH, metadata=metadata)
        )
    found = snapshots(layer.instance, datetime.now(UTC) - timedelta(hours=1), STATES)
    assert len(found) == MOST_A_TEST_TAKES
    newest = found[max(found)]
    assert newest["pending"] == MOST_A_TEST_TAKES + 2


def test_attempts_are_added_up_by_hour_of_utc(layer: Layer) -> None:
    layer.execute(
        "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome, embedded,"
        " cost_usd, seconds, finished_at) SELECT gen_random_uuid(), 'x', 'run', 'standard',"
        " 'published', n, 0.5, 1, '2026-03-02 04:59:59+00'::timestamptz + n * interval '1 second'"
        " FROM generate_series(0, 2) AS n"
    )
    with layer.database.transaction() as connection:
        connection.execute("SET LOCAL timezone = 'Asia/Kolkata'")  # half an hour off
        since = datetime(2026, 3, 1, tzinfo=UTC)
        local = [row._asdict() for row in sql.attempts_by_hour(connection, since=since)]
    rows = attempts_by_hour(layer.database, since)
    assert rows == local
    assert [(row["hour"], row["embedded"], row["cost_usd"]) for row in rows] == [
        (datetime(2026, 3, 2, 4, tzinfo=UTC), 0, 0.5),
        (datetime(2026, 3, 2, 5, tzinfo=UTC), 3, 1.0),
    ]
    later = attempts_by_hour(layer.database, datetime(2026, 3, 2, 5, tzinfo=UTC))
    assert [row["embedded"] for row in later] == [3]


def test_a_server_that_is_away_fails_clearly_and_shows_no_password(layer: Layer) -> None:
    layer.environment.setenv("DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/calls")
    result = layer.job("snapshot_health").execute_in_process(
        instance=layer.instance, raise_on_error=False
    )
    text, _ = failure_of(result)
    assert "DATABASE_URL" in text
    assert "hunter2" not in str(layer.instance.all_logs(result.run_id))
    assert layer.instance.get_latest_materialization_event(EMBEDDING_HEALTH) is None


@pytest.fixture
def old_schema(layer: Layer) -> Iterator[None]:
    """A database that was not migrated, until the test is over."""
    ((revision,),) = layer.rows("SELECT version_num FROM embedding_assets_version")
    layer.execute("UPDATE embedding_assets_version SET version_num = '0001'")
    yield
    layer.execute("UPDATE embedding_assets_version SET version_num = %s", revision)


@pytest.mark.usefixtures("old_schema")
def test_an_old_schema_fails_and_names_the_mend(layer: Layer) -> None:
    result = layer.job("snapshot_health").execute_in_process(
        instance=layer.instance, raise_on_error=False
    )
    text, _ = failure_of(result)
    assert "embedding-assets init" in text


def test_the_asset_stands_beside_the_chunks() -> None:
    asset = defs.get_assets_def("embedding_health")
    assert asset.partitions_def is None
    assert asset.asset_deps[asset.key] == {dg.AssetKey("transcript_chunks")}
    assert asset.group_names_by_key[asset.key] == "health"
    tags = asset.tags_by_key[asset.key]
    assert {"dagster/kind/postgres", "dagster/kind/pandas"} <= tags.keys()


def test_other_runs_load_neither_pandas_nor_matplotlib() -> None:
    # Half a second of every run's start.
    program = (
        "import sys, embedding_assets.definitions\n"
        "print([name for name in ('pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
