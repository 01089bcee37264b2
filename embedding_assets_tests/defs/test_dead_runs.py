"""That runs of dead processes are reported failed, and living ones never."""

import time
from datetime import timedelta

import dagster as dg
import psycopg
import pytest

from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.engine.errors import TakenForDeadError
from embedding_assets.engine.queue import Claims
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import DAGSTER_DATABASE, Layer, Tick
from embedding_assets_tests.system.conftest import until

LEASE = 2  # seconds
PATIENCE = 2 * LEASE / 5


@pytest.fixture
def short_lease(layer: Layer) -> None:
    layer.environment.setenv("LEASE_SECONDS", str(LEASE))


class Sensor:
    """The sensor with its cursor, as the daemon keeps it from tick to tick."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._cursor: str | None = None

    def look(self, *, writes: bool = False) -> None:
        """One tick."""
        data = self._tick("report_dead_runs", self._cursor, writes=writes)
        assert not data.run_requests
        self._cursor = data.cursor

    def look_twice(self) -> None:
        """Two ticks, with time for living runs to say so in between."""
        self.look()  # which holds that a first look reports nothing
        time.sleep(PATIENCE + 0.1)
        self.look(writes=True)


pytestmark = pytest.mark.usefixtures("short_lease")


@pytest.mark.parametrize("job", ["embed_recordings", "embed_recording", "sweep_vectors"])
def test_a_run_that_held_nothing_yet_is_reported_failed(layer: Layer, tick: Tick, job: str) -> None:
    dead = layer.started_run(job, hours_ago=0.1)
    Sensor(tick).look_twice()
    assert layer.dagster_run(dead.run_id).status is dg.DagsterRunStatus.FAILURE
    messages = [event.message or "" for event in layer.instance.all_logs(dead.run_id)]
    assert any("its process died" in message for message in messages)


def test_a_run_that_has_fallen_silent_is_reported_failed_whatever_its_job(
    layer: Layer, tick: Tick
) -> None:
    dead = layer.started_run("check_health", hours_ago=0.1)
    with EmbeddingEngine().beating(dead.run_id, layer.instance):
        time.sleep(0.2)
    time.sleep(LEASE + 0.2)
    Sensor(tick).look_twice()
    assert layer.dagster_run(dead.run_id).status is dg.DagsterRunStatus.FAILURE


def test_a_run_that_says_that_it_is_alive_is_left_alone(layer: Layer, tick: Tick) -> None:
    alive = layer.started_run(hours_ago=1)
    sensor = Sensor(tick)
    with EmbeddingEngine().beating(alive.run_id, layer.instance):
        time.sleep(LEASE + 0.2)
        sensor.look_twice()
    assert layer.dagster_run(alive.run_id).status is dg.DagsterRunStatus.STARTED


def test_runs_that_could_not_say_so_while_the_database_was_away_are_left_alone(
    layer: Layer, tick: Tick
) -> None:
    alive = layer.started_run(hours_ago=1)
    sensor = Sensor(tick)
    sensor.look()  # it is back, and nobody has spoken yet
    with EmbeddingEngine().beating(alive.run_id, layer.instance):
        time.sleep(PATIENCE + 0.1)
        sensor.look(writes=True)
    time.sleep(LEASE + 0.2)
    sensor.look()  # silent for another reason: watched anew
    assert layer.dagster_run(alive.run_id).status is dg.DagsterRunStatus.STARTED


def test_a_run_of_older_code_that_holds_a_lease_is_left_alone(layer: Layer, tick: Tick) -> None:
    layer.add_calls(a=talk("hello", 3))
    alive = layer.started_run(hours_ago=1)
    layer.hold(alive.run_id, "a", lease=timedelta(minutes=5))
    Sensor(tick).look_twice()
    assert layer.dagster_run(alive.run_id).status is dg.DagsterRunStatus.STARTED


def test_jobs_without_a_heartbeat_and_young_runs_are_left_alone(layer: Layer, tick: Tick) -> None:
    others = [layer.started_run("prune_runs", hours_ago=1), layer.started_run()]
    layer.environment.setenv("LEASE_SECONDS", "300")
    Sensor(tick).look_twice()
    for run in others:
        assert layer.dagster_run(run.run_id).status is dg.DagsterRunStatus.STARTED


def test_a_worker_says_that_it_is_alive(layer: Layer) -> None:
    layer.add_calls(a=talk("hello", 3))
    result = layer.worker()
    assert layer.rows("SELECT run_id FROM run_heartbeats") == [(result.run_id,)]
    layer.execute("UPDATE run_heartbeats SET beaten_at = now() - interval '8 days'")
    again = layer.worker()
    assert layer.rows("SELECT run_id FROM run_heartbeats") == [(again.run_id,)]


def test_a_run_that_was_reported_dead_claims_nothing_when_it_wakes_up(
    layer: Layer, tick: Tick
) -> None:
    frozen = layer.started_run(hours_ago=1)
    claims = Claims(layer.database, frozen.run_id)
    assert list(claims.due()) == []
    Sensor(tick).look_twice()
    assert layer.dagster_run(frozen.run_id).status is dg.DagsterRunStatus.FAILURE
    layer.add_calls(a=talk("hello", 3))
    with pytest.raises(TakenForDeadError):
        next(claims.due())


def test_a_run_that_a_person_calls_ended_although_it_lives_claims_nothing_more(
    layer: Layer,
) -> None:
    run = layer.started_run(hours_ago=1)
    layer.instance.report_run_canceled(layer.dagster_run(run.run_id))
    with EmbeddingEngine().beating(run.run_id, layer.instance):
        time.sleep(0.2)
    layer.add_calls(a=talk("hello", 3))
    with pytest.raises(TakenForDeadError):
        next(Claims(layer.database, run.run_id).due())


@pytest.mark.slow  # Dagster tries long
def test_a_run_goes_on_saying_that_it_is_alive_after_dagsters_storage_was_away(
    layer: Layer, server: EmbeddedPostgres
) -> None:
    run = layer.started_run(hours_ago=1)
    beaten = "SELECT max(beaten_at) FROM run_heartbeats"
    let_in = f"ALTER DATABASE {DAGSTER_DATABASE} ALLOW_CONNECTIONS"
    with (
        psycopg.connect(server.url(), autocommit=True) as connection,
        EmbeddingEngine().beating(run.run_id, layer.instance),
    ):
        connection.execute(f"{let_in} false")  # type: ignore[arg-type]
        time.sleep(12)  # it gives up after ten seconds
        connection.execute(f"{let_in} true")  # type: ignore[arg-type]
        ((before,),) = layer.rows(beaten)
        until("another beat", lambda: layer.rows(beaten)[0][0] > before, seconds=60)
