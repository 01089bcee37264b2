from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.instance.ref import InstanceRef  # no public way to an instance from a dict

from embedding_assets.definitions import defs
from embedding_assets.defs.partitions import RECORDINGS, recordings
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets.defs.schedules import build_schedules
from embedding_assets.engine.database import Database
from embedding_assets.engine.queue import Claims
from embedding_assets.migrations import migrate
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets_tests.calls import add_call, rows
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

Tick = Callable[..., Any]

DATABASE = "dagster_layer"
DAGSTER_DATABASE = "dagster_layer_storage"
DIMENSIONS = 64
MARKER = "unacceptable"
# A database for each test would take a second each; these are emptied instead.
# To delete a few rows is quicker than to truncate, which makes new files for every table.
EMPTY = """
    DO $$ DECLARE name text; BEGIN
        SET LOCAL session_replication_role = replica;  -- no trigger queues what is deleted
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            CONTINUE WHEN name IN ('embedding_assets_version', 'alembic_version',
                                   'secondary_indexes', 'instance_info');
            EXECUTE format('DELETE FROM %I', name);
            IF name = 'integrity_progress' THEN  -- it has its one row always
                INSERT INTO integrity_progress DEFAULT VALUES;
            ELSIF name = 'search_languages' THEN
                INSERT INTO search_languages (language, is_live) VALUES ('english', true);
            END IF;
        END LOOP;
    END $$
"""
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def _open_instance(url: str, folder: Path) -> dg.DagsterInstance:
    storage = {"postgres": {"postgres_url": url.replace("postgresql:", "postgresql+psycopg2:", 1)}}
    overrides = {"storage": storage, "telemetry": {"enabled": False}}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=overrides))


@pytest.fixture(scope="session")
def shared_instance(
    server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with its storage on the tests' server."""
    server.ensure_database(DAGSTER_DATABASE)
    folder = tmp_path_factory.mktemp("dagster")
    with _open_instance(server.url(DAGSTER_DATABASE), folder) as instance:
        yield instance


@pytest.fixture
def instance(
    server: EmbeddedPostgres, shared_instance: dg.DagsterInstance
) -> Iterator[dg.DagsterInstance]:
    """The instance, with no runs, events, ticks or partitions in it."""
    yield shared_instance
    with psycopg.connect(server.url(DAGSTER_DATABASE)) as connection:
        connection.execute(EMPTY)


@pytest.fixture(scope="session")
def shared_database_url(server: EmbeddedPostgres) -> str:
    """The URL of a migrated database for all tests here."""
    server.ensure_database(DATABASE)
    migrate(server.url(DATABASE))
    return server.url(DATABASE)


@pytest.fixture
def database_url(shared_database_url: str) -> Iterator[str]:
    """The URL of the migrated database, with nothing in it."""
    yield shared_database_url
    with psycopg.connect(shared_database_url) as connection:
        connection.execute(EMPTY)


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield api


@pytest.fixture
def environment(
    api: LoopbackAPI, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The settings of these tests, whatever the developer's environment and `.env` say."""
    monkeypatch.setattr("embedding_assets.settings.ENV_FILE", tmp_path / "no.env")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in {
        "DATABASE_URL": database_url,
        "EMBEDDING_ASSETS_HOME": str(tmp_path),
        "EMBEDDING_PROVIDER": "openai",
        "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "EMBEDDING_PRICE_PER_MILLION_TOKENS": "0.02",
        "OPENAI_API_KEY": "sk-very-secret",
        "OPENAI_BASE_URL": api.base_url,
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@dataclass
class Layer:
    """Dagster on real parts: what a test does to it, and what it shows afterwards."""

    instance: dg.DagsterInstance
    database: Database
    environment: pytest.MonkeyPatch

    def add_calls(self, **texts: Sequence[str]) -> None:
        """Calls that say these texts, each a partition already."""
        with self.database.transaction() as connection:
            for recording_id, said in texts.items():
                add_call(connection, recording_id, said)
        self.instance.add_dynamic_partitions(RECORDINGS, list(texts))

    def execute(self, statement: str, *parameters: object) -> None:
        """Changes the application's database."""
        with self.database.transaction() as connection:
            connection.execute(statement, list(parameters))

    def rows(self, query: str, *parameters: object) -> list[Any]:
        """What a query gives."""
        return rows(self.database, query, parameters)

    def statuses(self) -> dict[str, str]:
        """The state of each recording in the queue."""
        return dict(self.rows("SELECT recording_id, status FROM embedding_queue"))

    def materialize(
        self, first: str, last: str | None = None, **config: object
    ) -> dg.ExecuteInProcessResult:
        """A run of one partition, or of a range as backfills launch it."""
        arguments: dict[str, Any] = {"partition_key": first}
        if last is not None:
            arguments = {"tags": {RANGE_START: first, RANGE_END: last}}
        return self.job("embed_recording").execute_in_process(
            instance=self.instance,
            run_config={"ops": {"transcript_chunks": {"config": config}}},
            raise_on_error=False,
            **arguments,
        )

    def worker(self, **config: object) -> dg.ExecuteInProcessResult:
        """A run of the worker."""
        return self.run("embed_recordings", "embed_due_recordings", **config)

    def run(self, job: str, op: str, **config: object) -> dg.ExecuteInProcessResult:
        """A run of a job of one op."""
        return self.job(job).execute_in_process(
            instance=self.instance,
            run_config={"ops": {op: {"config": config}}},
            raise_on_error=False,
        )

    @staticmethod
    def job(name: str) -> dg.JobDefinition:
        """A job as Dagster loads it."""
        return defs.resolve_job_def(name)

    def started_run(self, job: str = "embed_recordings", *, hours_ago: float = 0) -> dg.DagsterRun:
        """A run whose process is gone, or has only begun: Dagster counts it as started."""
        run = self.instance.create_run_for_job(self.job(job))
        self.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job, message=""), run.run_id
        )
        storage: Any = self.instance.run_storage
        with storage.connect() as connection:
            connection.exec_driver_sql(
                "UPDATE runs SET start_time = start_time - %s WHERE run_id = %s",
                (hours_ago * 3600, run.run_id),
            )
        return self.dagster_run(run.run_id)

    def hold(self, run_id: str, *recording_ids: str, lease: timedelta) -> None:
        """Claims that a run holds; with a lease of no time, one that died."""
        claims = Claims(self.database, run_id, lease)
        assert {c.recording_id for c in claims.these(recording_ids) if c} == set(recording_ids)

    def dagster_run(self, run_id: str) -> dg.DagsterRun:
        """The run as the instance has it now."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def materializations(self, result: dg.ExecuteInProcessResult) -> dict[str | None, Any]:
        """The metadata of each partition that the run materialized, as Dagster's storage has it.

        None of them is there twice.
        """
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        logged = [
            entry.asset_materialization
            for entry in self.instance.all_logs(result.run_id, of_type=kind)
        ]
        found = {
            each.partition: {name: value.value for name, value in each.metadata.items()}
            for each in logged
            if each is not None
        }
        assert len(found) == len(logged)
        return found

    def materialized(self) -> set[str]:
        """The partitions that Dagster shows as materialized."""
        return self.instance.get_materialized_partitions(TRANSCRIPT_CHUNKS)

    def partition_states(self) -> dict[str, str | None]:
        """What Dagster shows for each partition: MATERIALIZED, FAILED, or nothing yet."""
        keys = list(self.instance.get_dynamic_partitions(RECORDINGS))
        states = self.instance.get_status_by_partition(TRANSCRIPT_CHUNKS, keys, recordings)
        assert states is not None
        return {key: state and state.value for key, state in states.items()}


@pytest.fixture
def layer(
    instance: dg.DagsterInstance, database: Database, environment: pytest.MonkeyPatch
) -> Layer:
    return Layer(instance, database, environment)


def contents(layer: Layer) -> dict[str, Any]:
    """Every row of every table of the application, and the numbers of Dagster's own.

    Not of the one that living runs write beside a tick.
    """
    tables = layer.rows(
        "SELECT tablename FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename <> 'run_heartbeats' ORDER BY 1"
    )
    contents: dict[str, Any] = {
        name: layer.rows(f"SELECT all_of_it::text FROM {name} AS all_of_it ORDER BY 1")  # noqa: S608
        for (name,) in tables
    }
    contents["runs"] = layer.instance.get_runs_count()
    contents["partitions"] = sorted(layer.instance.get_dynamic_partitions(RECORDINGS))
    return contents


@pytest.fixture
def tick(layer: Layer) -> Tick:
    """Evaluates a sensor, and holds that it changed nothing by itself unless it `writes`."""

    def tick(sensor: str, cursor: str | None = None, *, writes: bool = False) -> Any:
        before = contents(layer)
        context = dg.build_sensor_context(
            instance=layer.instance,
            instance_ref=layer.instance.get_ref(),  # the daemon's way; it checks partitions by it
            cursor=cursor,
            repository_def=defs.get_repository_def(),
            sensor_name=sensor,
            resources={"engine": EmbeddingEngine()},
        )
        with context:
            data = defs.resolve_sensor_def(sensor).evaluate_tick(context)
        assert writes or contents(layer) == before
        return data

    return tick


@pytest.fixture
def scheduled(layer: Layer) -> Tick:
    """Evaluates a schedule, and holds that it changed nothing by itself."""

    def scheduled(name: str) -> Any:
        before = contents(layer)
        (schedule,) = [each for each in build_schedules(Settings()) if each.name == name]
        context = dg.build_schedule_context(
            instance=layer.instance,
            scheduled_execution_time=datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
            repository_def=defs.get_repository_def(),
            resources={"engine": EmbeddingEngine()},
        )
        with context:
            data = schedule.evaluate_tick(context)
        assert contents(layer) == before
        return data

    return scheduled


def refusing_the_marker() -> Fault:
    """The API refuses each request with an input that says the marker."""
    return Fault(
        status=400, param="input", when=lambda inputs: any(MARKER in text for text in inputs)
    )


def failure_of(result: dg.ExecuteInProcessResult) -> tuple[str, dict[str, Any]]:
    """The text and the metadata of the Failure that ended a run."""
    assert not result.success
    (event,) = result.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description is not None
    return failure.description, {name: value.value for name, value in failure.metadata.items()}
