"""What health says of Dagster's daemon is what Dagster's own storage says."""

import time
from datetime import UTC, datetime

import dagster as dg
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat  # what the daemon's threads write

from embedding_assets.health.findings import Finding, Severity
from embedding_assets.health.surroundings import DAEMONS, orchestration
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets_tests.defs.conftest import DAGSTER_DATABASE


@pytest.fixture(autouse=True)
def _storage(
    server: EmbeddedPostgres, instance: dg.DagsterInstance, environment: pytest.MonkeyPatch
) -> None:
    url = server.url(DAGSTER_DATABASE).replace("postgresql:", "postgresql+psycopg2:", 1)
    environment.setenv("DAGSTER_PG_URL", url)


def _found(instance: dg.DagsterInstance, **minutes_ago: float) -> Finding:
    for daemon, minutes in minutes_ago.items():
        instance.add_daemon_heartbeat(
            DaemonHeartbeat(time.time() - 60 * minutes, daemon, "the daemon", None)
        )
    return orchestration(Settings())


def test_a_daemon_that_ticks_is_healthy(instance: dg.DagsterInstance) -> None:
    assert _found(instance).severity is Severity.HEALTHY  # none has run yet
    found = _found(instance, **dict.fromkeys(DAEMONS, 0.5))
    assert found.severity is Severity.HEALTHY
    heard = datetime.fromisoformat(str(found.figures["daemon_heard_at"]))
    assert 20 < (datetime.now(UTC) - heard).total_seconds() < 60


def test_one_whose_schedules_no_longer_tick_is_told(instance: dg.DagsterInstance) -> None:
    found = _found(instance, SENSOR=0, QUEUED_RUN_COORDINATOR=0, SCHEDULER=31, BACKFILL=9_999)
    assert found.severity is Severity.CRITICAL
    assert "SCHEDULER" in found.message


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_the_time_zone_of_the_server_is_no_matter(
    server: EmbeddedPostgres, instance: dg.DagsterInstance, zone: str
) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {DAGSTER_DATABASE} SET timezone = '{zone}'")  # type: ignore[arg-type]
        try:
            assert _found(instance, SENSOR=0, SCHEDULER=0).severity is Severity.HEALTHY
            found = _found(instance, SENSOR=6)
            assert found.severity is Severity.WARNING
        finally:
            connection.execute(f"ALTER DATABASE {DAGSTER_DATABASE} RESET timezone")  # type: ignore[arg-type]


def test_a_daemon_that_the_others_have_outlived_is_not_expected(
    instance: dg.DagsterInstance,
) -> None:
    a_day = 24 * 60
    found = _found(instance, SENSOR=0, SCHEDULER=0, QUEUED_RUN_COORDINATOR=a_day + 1)
    assert found.severity is Severity.HEALTHY


@pytest.mark.parametrize("parameter", ["-csearch_path=public", "-c+search_path%3Dpublic"])
def test_parameters_of_the_storages_url_are_sqlalchemys(
    server: EmbeddedPostgres,
    instance: dg.DagsterInstance,
    environment: pytest.MonkeyPatch,
    parameter: str,
) -> None:
    url = server.url(DAGSTER_DATABASE).replace("postgresql:", "postgresql+psycopg2:", 1)
    environment.setenv("DAGSTER_PG_URL", f"{url}&options={parameter}")
    assert _found(instance, SENSOR=0).message.startswith("Dagster's storage answers")
