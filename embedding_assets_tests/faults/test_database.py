"""A worker, and a database that fails in every way."""

import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.server.embedded_postgres import PORT, EmbeddedPostgres
from embedding_assets.server.processes import is_postmaster, send_signal, wait_until_gone
from embedding_assets_tests.checkout import short_folder
from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import look, wait_until
from embedding_assets_tests.faults.proxy import Cut, proxy
from embedding_assets_tests.faults.scene import SECRET, Scene, corpus_server
from embedding_assets_tests.faults.workers import ENDED, Patience
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.machine import need
from embedding_assets_tests.system import brokers

PLACE = "engine, database"
LATENCY = 0.1  # of the API, so that a run lasts for a while
AWAY = 1.0  # seconds
PAGE = 8_192

Fault = Callable[[Scene, random.Random], None]


def _superuser(scene: Scene, database: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(scene.server.url(database), autocommit=True)


def _terminate(connection: psycopg.Connection[Any], scene: Scene) -> int:
    """Ends all connections to the scene's database but this one."""
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    (row,) = connection.execute(query, [scene.name]).fetchall()
    return int(row[0])


def terminated_backends(scene: Scene, chance: random.Random) -> None:
    """All connections are ended, again and again."""
    with _superuser(scene) as connection:
        for _ in range(5):
            _terminate(connection, scene)
            time.sleep(chance.uniform(0.05, 0.4))


def is_read_only(scene: Scene, chance: random.Random) -> None:
    """The database refuses writes for a while, as after a failover to a replica."""
    with _superuser(scene) as connection:
        connection.execute(f"ALTER DATABASE {scene.name} SET default_transaction_read_only = on")
        _terminate(connection, scene)
        time.sleep(AWAY + chance.random())
        connection.execute(f"ALTER DATABASE {scene.name} RESET default_transaction_read_only")
        _terminate(connection, scene)


def locked(table: str) -> Fault:
    """Somebody locks this table for a while."""

    def lock(scene: Scene, chance: random.Random) -> None:
        with _superuser(scene, scene.name) as connection, connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            time.sleep(AWAY + chance.random())

    return lock


def _other_way_round(scene: Scene, chance: random.Random) -> None:
    """A session that holds the live model, and wants what a worker publishes that waits for it.

    With that it would be a deadlock, of which this session is never the victim.
    """
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = %s"
    before = look(scene.database, query, [scene.name])
    with _superuser(scene, scene.name) as connection, connection.transaction():
        connection.execute("SELECT FROM embedding_models WHERE is_live FOR UPDATE")
        wait_until(lambda: look(scene.database, "SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1"))
        held = "SELECT recording_id FROM embedding_queue WHERE status = 'processing'"
        for (recording_id,) in look(scene.database, held):
            mine = "SELECT FROM embedding_queue WHERE recording_id = %s FOR UPDATE"
            connection.execute(mine, [recording_id])
        time.sleep(chance.random())
    assert look(scene.database, query, [scene.name]) == before


FAULTS: dict[str, Fault] = {
    "its backends terminated five times": terminated_backends,
    "read-only": is_read_only,
    "fathom_calls locked": locked("fathom_calls"),
    "fathom_transcripts locked": locked("fathom_transcripts"),
    "embedding_queue locked": locked("embedding_queue"),
    "locks taken the other way round": _other_way_round,
}


def _assert_passed(scene: Scene) -> None:
    """The run went on when the database was there again; nobody paid, or was charged, for it."""
    assert scene.said == [ENDED]
    assert scene.charged() == {}
    assert {each.outcome for each in scene.attempts()} == {"published"}
    assert scene.paid_again() == {}


def _during(scene: Scene, fault: Fault, chance: random.Random, **options: Any) -> None:
    """The fault, at some moment of a run."""
    scene.api.latency = LATENCY
    with scene.work(**options) as process:
        wait_until(lambda: scene.api.stats.requests or not process.is_alive())
        time.sleep(chance.uniform(0, 0.5))
        fault(scene, chance)
    scene.api.latency = 0.0


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", FAULTS)
def test_a_database_that_is_away_for_a_while_costs_time_and_nothing_else(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    _during(scene, FAULTS[name], chance)
    _assert_passed(scene)
    scene.end()
    row(PLACE, name).moment("passed within the run")


@pytest.mark.moments(some=1, all=6)
def test_inserts_that_pass_the_statement_timeout_become_smaller(
    scene: Scene, row: BeginRow, chance: random.Random, moment: int
) -> None:
    with _superuser(scene, scene.name) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON chunk_embeddings"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        timeout = chance.randrange(500, 700)  # milliseconds; publishing takes a few
        connection.execute(f"ALTER DATABASE {scene.name} SET statement_timeout = {timeout}")
        _terminate(connection, scene)
    scene.run(EMBEDDING_MAX_REQUEST_TOKENS="8000")
    smallest = "SELECT min(smallest_insert_batch) FROM embedding_attempts WHERE run_id <> 'first'"
    assert look(scene.database, smallest)[0][0] <= 25
    _assert_passed(scene)
    scene.end()
    row(PLACE, "57014, a statement timeout").moment("smaller inserts, in the run")


# What takes a server of its own.


def shut_down(how: signal.Signals) -> Fault:
    """The server is ended by this signal, and started again."""

    def shut_down(scene: Scene, chance: random.Random) -> None:
        everybody = scene.server._processes()
        (postmaster,) = filter(is_postmaster, everybody)
        send_signal(postmaster, how)
        wait_until_gone(everybody, 30)
        time.sleep(chance.random() * AWAY)
        scene.server.ensure_running()

    return shut_down


def too_many_connections(scene: Scene, chance: random.Random) -> None:
    """All connections are taken by somebody else for a while."""
    with ExitStack() as stack, _superuser(scene) as connection:

        def take_all() -> None:
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(_superuser(scene))

        take_all()
        _terminate(connection, scene)
        take_all()
        time.sleep(AWAY + chance.random())


ON_ITS_OWN: dict[str, Fault] = {
    "shut down immediately, and restarted": shut_down(signal.SIGQUIT),
    "restarted": shut_down(signal.SIGINT),
    "too many connections": too_many_connections,
}


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", ON_ITS_OWN)
def test_a_server_that_goes_and_comes_back_costs_time_and_nothing_else(
    own_scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    _during(own_scene, ON_ITS_OWN[name], chance)
    _assert_passed(own_scene)
    own_scene.end()
    row(PLACE, name).moment("passed within the run")


@pytest.mark.moments(some=1, all=6)
def test_a_server_that_stays_away_ends_the_run_in_one_line_and_the_next_goes_on(
    own_scene: Scene, row: BeginRow, chance: random.Random, moment: int
) -> None:
    own_scene.api.latency = LATENCY
    with own_scene.work(patience=Patience(database=1.0)) as process:
        wait_until(lambda: own_scene.api.stats.requests or not process.is_alive())
        time.sleep(chance.uniform(0, 0.5))
        own_scene.server.stop()
        process.join(timeout=60)
        own_scene.server.ensure_running()
    own_scene.api.latency = 0.0
    (told,) = own_scene.said
    assert re.match(r"TransientError: (cannot connect to Postgres|the database connection)", told)
    assert "\n" not in told
    own_scene.end(runs=3)
    # It could give nothing back: its leases ended, and what was under way was asked for again.
    assert set(own_scene.paid_again()) <= set(own_scene.api.stats.asked[f"{SECRET}-run-1"])
    assert own_scene.charged() == {}
    line = row(PLACE, "away for longer than a run waits")
    line.moment("stopped, nothing charged")
    if own_scene.paid_again():
        line.saw("what was under way paid again")


# What lies between the worker and the server.


@pytest.fixture
def pooler(server: EmbeddedPostgres) -> Iterator[brokers.Server]:
    need("PgBouncer")
    with short_folder("pooler") as folder:
        pgbouncer = brokers.pgbouncer(folder, server.socket_dir)
        pgbouncer.start()
        yield pgbouncer
        pgbouncer.stop()


@pytest.mark.moments(some=1, all=6)
def test_a_pooler_that_restarts_costs_time_and_nothing_else(
    pooler: brokers.Server,
    scene: Scene,
    row: BeginRow,
    chance: random.Random,
    moment: int,
) -> None:
    url = scene.url.replace(f"host={scene.server.socket_dir}", f"host={pooler.socket.parent}")
    url = url.replace(f"port={PORT}", f"port={brokers.PORT}")
    _during(scene, lambda *_: brokers.restart(pooler, chance.random() * AWAY), chance, url=url)
    _assert_passed(scene)
    scene.end()
    row(PLACE, "its pooler restarted").moment("passed within the run")


CUTS = {
    "cut in the middle of the vectors": (b"INSERT INTO chunk_embeddings", False),
    "cut in the middle of a publication": (b"INSERT INTO transcript_chunks", False),
    "cut before the answer to a commit": (b"COMMIT", True),
    "cut before the answer to a claim": (b"SET status = 'processing'", True),
}


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", CUTS)
def test_a_connection_that_is_cut_costs_time_and_nothing_else(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    marker, after_answer = CUTS[name]
    cut = Cut(marker, after_answer=after_answer)

    def begin(*_: object) -> None:
        cut.times = chance.randint(1, 4)

    with proxy(scene.server.socket_dir.resolve() / f".s.PGSQL.{PORT}", cut) as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/{scene.name}?sslmode=disable"
        _during(scene, begin, chance, url=url)
    assert cut.done or after_answer
    _assert_passed(scene)
    scene.end()
    row(PLACE, name).moment("passed within the run")


# What takes root.


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path]:
    """A disk that a test fills."""
    need("root's rights")
    with short_folder("disk") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        folder.chmod(0o711)
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def cramped_server(small_disk: Path) -> Iterator[EmbeddedPostgres]:
    with corpus_server(small_disk) as server:
        yield server


@pytest.fixture
def cramped_scene(
    cramped_server: EmbeddedPostgres, api: LoopbackAPI, chance: random.Random
) -> Iterator[Scene]:
    with Scene.on(cramped_server, "published", api, chance) as scene:
        yield scene


def _full_disk(scene: Scene, chance: random.Random) -> None:
    ballast = scene.server.home.parent / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(PAGE)) == PAGE:
            pass
    time.sleep(AWAY + chance.random())
    ballast.unlink()
    scene.server.ensure_running()  # it ends itself where its log has no room


@pytest.mark.moments(some=1, all=6)
def test_a_full_disk_costs_time_and_nothing_else(
    cramped_scene: Scene, row: BeginRow, chance: random.Random, moment: int
) -> None:
    _during(cramped_scene, _full_disk, chance)
    _assert_passed(cramped_scene)
    cramped_scene.end()
    row(PLACE, "its disk full").moment("passed within the run")
