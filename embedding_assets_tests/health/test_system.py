import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.health.findings import Health, Severity
from embedding_assets.health.judging import CHECKS, Thresholds
from embedding_assets.health.system import system_health, thresholds
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.loopback_api import LoopbackAPI

DIMENSIONS = 32


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Settings of these environment variables, and of none of the developer's."""
    monkeypatch.setattr("embedding_assets.settings.ENV_FILE", tmp_path / "none")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def settings(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Settings()

    return settings


def _configuration(health: Health) -> str:
    finding = next(each for each in health.findings if each.name == "configuration")
    return f"{finding.severity}: {finding.message}"


def test_the_defaults_are_the_engines(settings: Any) -> None:
    assert thresholds(settings()) == Thresholds()


def test_each_setting_moves_its_threshold(settings: Any) -> None:
    names = {
        "HEALTH_DEAD_LETTERS_WARNING": "1", "HEALTH_DEAD_LETTERS_CRITICAL": "2",
        "HEALTH_PENDING_WARNING": "3", "HEALTH_PENDING_CRITICAL": "4",
        "HEALTH_QUIET_HOURS_WARNING": "0.5", "HEALTH_QUIET_HOURS_CRITICAL": "7",
        "HEALTH_COMPLETION_WARNING": "90.5", "HEALTH_STALE_CLAIMS_WARNING": "8",
    }  # fmt: skip
    assert thresholds(settings(**names)) == Thresholds(
        dead_letters_warning=1, dead_letters_critical=2, pending_warning=3, pending_critical=4,
        quiet_warning=timedelta(minutes=30), quiet_critical=timedelta(hours=7),
        completion_warning=90.5, stale_claims_warning=8,
    )  # fmt: skip


def test_a_fresh_system_is_healthy(settings: Any, database_url: str) -> None:
    health = system_health(settings(DATABASE_URL=database_url))
    assert health.severity is Severity.HEALTHY
    assert tuple(finding.name for finding in health.findings) == CHECKS


def test_the_settings_thresholds_judge(settings: Any, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO fathom_calls (recording_id, title) VALUES ('a', 'A call')")
    health = system_health(settings(DATABASE_URL=database_url, HEALTH_PENDING_CRITICAL="1"))
    assert health.severity is Severity.CRITICAL


def test_a_missing_key_is_a_finding_and_the_database_is_judged_all_the_same(
    settings: Any, database_url: str
) -> None:
    health = system_health(settings(DATABASE_URL=database_url, EMBEDDING_PROVIDER="openai"))
    assert _configuration(health).startswith("critical: ")
    assert "OPENAI_API_KEY" in _configuration(health)
    assert tuple(finding.name for finding in health.findings) == CHECKS
    assert health.numbers is not None


def test_settings_that_name_another_model_than_search_reads(
    settings: Any, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO embedding_models VALUES ('openai/other/7', 7, true)")
    health = system_health(settings(DATABASE_URL=database_url))
    assert "search reads openai/other/7" in _configuration(health)


def test_a_database_that_is_away_is_critical_and_its_password_is_told_nobody(
    settings: Any,
) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/calls"
    health = system_health(settings(DATABASE_URL=url, EMBEDDING_PROVIDER="openai"))
    assert health.severity is Severity.CRITICAL
    assert health.numbers is None
    assert "cannot connect to Postgres" in _configuration(health)
    assert "OPENAI_API_KEY" in _configuration(health)  # both are told at once
    assert "hunter2" not in json.dumps(health.as_dict(), default=str)


def test_a_database_that_takes_no_writes_is_critical(
    settings: Any, server: EmbeddedPostgres, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # type: ignore[arg-type]
    health = system_health(settings(DATABASE_URL=database_url))
    assert _configuration(health).startswith("critical: the database takes no writes")
    assert health.numbers is not None


def test_a_locked_table_of_the_recorder_is_told_with_whose_lock_it_is(
    settings: Any, database_url: str
) -> None:
    with psycopg.connect(database_url) as somebody:
        somebody.execute("LOCK TABLE fathom_calls")
        health = system_health(settings(DATABASE_URL=database_url))
        told = f"critical: fathom_calls is locked by process {somebody.info.backend_pid} "
    assert _configuration(health).startswith(told)
    assert [finding.name for finding in health.findings] == [
        "configuration",
        "disk",
        "orchestration",
    ]


def test_a_database_without_a_schema_names_the_command(
    settings: Any, empty_database_url: str
) -> None:
    health = system_health(settings(DATABASE_URL=empty_database_url))
    assert health.severity is Severity.CRITICAL
    assert "embedding-assets init" in _configuration(health)


@pytest.fixture
def cli(server: EmbeddedPostgres, database_url: str) -> Iterator[Checkout]:
    """The command in a checkout of its own, on a migrated database of the tests' server."""
    folder = Path(tempfile.mkdtemp(prefix="ea-health-"))
    folder.chmod(0o711)
    server.ensure_database("dagster_of_health")
    storage = server.url("dagster_of_health").replace("postgresql://", "postgresql+psycopg2://")
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield Checkout(
            folder / "checkout",
            EMBEDDING_ASSETS_HOME=str(folder / "home"),
            DATABASE_URL=database_url,
            DAGSTER_PG_URL=storage,
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=api.base_url,
        )
    shutil.rmtree(folder)


INSPECT = (
    "from embedding_assets.health.integrity import inspect\n"
    "from embedding_assets.settings import Settings\n"
    "from embedding_assets.server.connections import open_database\n"
    "with open_database(Settings()) as database: inspect(database)"
)


def test_the_command_that_the_finding_names_mends_what_is_broken(
    cli: Checkout, database_url: str
) -> None:
    cli("init")
    with psycopg.connect(database_url) as connection:
        for id in ("orphan", "zero", "short", "gap", "sound"):
            connection.execute(
                "INSERT INTO fathom_calls (recording_id, title) VALUES (%s, 'A call')", [id]
            )
            connection.execute(
                "INSERT INTO fathom_transcripts (recording_id, position, text) VALUES (%s, 0, %s)",
                [id, f"The heron of {id} stands in the shallow water."],
            )
    cli("run")
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'orphan'")
        connection.execute("DELETE FROM embedding_queue WHERE recording_id = 'orphan'")
        connection.execute("DELETE FROM transcript_chunks WHERE recording_id = 'gap'")
        for id, vector in (("zero", [0.0] * DIMENSIONS), ("short", [1.0, 2.0])):
            connection.execute(
                "UPDATE chunk_embeddings SET embedding = %s::real[]::vector WHERE content_hash ="
                " (SELECT content_hash FROM transcript_chunks WHERE recording_id = %s)",
                [vector, id],
            )

    def found() -> list[str]:
        cli.run("python", "-c", INSPECT)
        with psycopg.connect(database_url) as connection:
            return [
                id for (id,) in connection.execute("SELECT recording_id FROM integrity_findings")
            ]

    broken = ["gap", "orphan", "short", "zero"]
    assert sorted(found()) == broken
    done = json.loads(cli("retry", "--broken", "--now", "--json").stdout)
    assert done["queued"] == broken
    assert (done["run"]["success"], done["run"]["processed"]) == (True, 4)
    assert done["run"]["chunks_embedded"] == 2
    assert found() == []
    assert json.loads(cli("retry", "--broken", "--json").stdout) == {"queued": [], "run": None}
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT DISTINCT recording_id FROM transcript_chunks ORDER BY 1")
        assert left.fetchall() == [("gap",), ("short",), ("sound",), ("zero",)]
