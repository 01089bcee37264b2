"""The disks, and Dagster's storage and daemon."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.health.findings import Finding, Severity
from embedding_assets.health.judging import CHECKS
from embedding_assets.health.surroundings import (
    SILENCE_CRITICAL,
    SILENCE_WARNING,
    ServerDisk,
    daemon_finding,
    disk,
    surroundings,
)
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets_tests.checkout import short_folder
from embedding_assets_tests.machine import need

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("silence", "severity"),
    [
        (SILENCE_WARNING - SECOND, Severity.HEALTHY),
        (SILENCE_WARNING, Severity.WARNING),
        (SILENCE_CRITICAL, Severity.CRITICAL),
    ],
)
def test_the_daemon_that_is_silent_for_longest_is_judged(
    silence: timedelta, severity: Severity
) -> None:
    heard = {"SENSOR": NOW - silence, "SCHEDULER": NOW - SECOND}
    finding = daemon_finding(heard, NOW)
    assert finding.severity is severity
    assert (finding.action is None) == (severity is Severity.HEALTHY)
    assert ("SENSOR" in finding.message) == (severity is not Severity.HEALTHY)


def test_where_no_daemon_ever_ran_nobody_is_alarmed() -> None:
    assert daemon_finding({}, NOW).severity is Severity.HEALTHY


def test_a_home_that_is_not_there_yet_has_a_disk_all_the_same(tmp_path: Path) -> None:
    finding = disk(tmp_path / "not" / "there", ServerDisk(None, 5))
    assert finding.severity is Severity.HEALTHY
    assert finding.figures["home_free_gib"]


def _settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type,call-arg]


def _found(settings: Settings, database: Database | None) -> dict[str, Finding]:
    found = {finding.name: finding for finding in surroundings(settings, database)}
    assert tuple(found) == CHECKS[-2:]
    return found


def test_dagsters_storage_that_is_away_is_critical_where_it_was_named(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://someone:hunter2@127.0.0.1:1/dagster"
    found = _found(_settings(embedding_assets_home=tmp_path, dagster_pg_url=url), None)
    assert found["orchestration"].severity is Severity.CRITICAL
    assert "DAGSTER_PG_URL" in str(found["orchestration"].action)
    assert "hunter2" not in str(found)


def test_without_dagster_beside_the_database_nothing_is_judged(
    database_url: str, tmp_path: Path
) -> None:
    found = _found(_settings(embedding_assets_home=tmp_path, database_url=database_url), None)
    assert found["orchestration"].severity is Severity.HEALTHY


@pytest.fixture
def little_disk() -> Iterator[Path]:
    """A file system of 4 MB."""
    with short_folder("disk") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", str(folder)]
        need("root's rights")
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_of_the_server_is_seen_by_a_client(
    server: EmbeddedPostgres, database: Database, database_url: str, little_disk: Path
) -> None:
    place = little_disk / "space"
    place.mkdir()
    owner = server.data_dir.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"CREATE TABLESPACE little LOCATION '{place}'")  # type: ignore[arg-type]
        connection.execute(f"ALTER DATABASE {name} SET temp_tablespaces = little")  # type: ignore[arg-type]
    try:
        settings = _settings(embedding_assets_home=little_disk.parent, database_url=database_url)
        found = _found(settings, database)["disk"]
        assert found.severity is Severity.CRITICAL
        assert found.message.startswith("the disk of the database server is full")
    finally:
        database.close()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} RESET temp_tablespaces")  # type: ignore[arg-type]
            connection.execute("DROP TABLESPACE little")


def test_a_server_with_room_tells_how_much_its_database_takes(
    database: Database, tmp_path: Path
) -> None:
    found = _found(_settings(embedding_assets_home=tmp_path), database)["disk"]
    assert found.severity is Severity.HEALTHY
    assert int(found.figures["database_bytes"] or 0) > 1_000_000
