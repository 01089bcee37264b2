"""The same project as Celery's tasks: three workers, Redis, PgBouncer, and what befalls them."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets.server.connections import APPLICATION_DATABASE, DAGSTER_DATABASE
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import BIN, ROOT, Checkout
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.machine import needing
from embedding_assets_tests.system import brokers
from embedding_assets_tests.system.conftest import DIMENSIONS, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needing("Redis", "PgBouncer"),
]

RECORDINGS = 300
WORKERS = 3
LEASE_SECONDS = 15
DEPLOY = Path("deploy") / "celery"


@dataclass
class Cluster:
    """A daemon, Celery's workers and what they stand on."""

    api: LoopbackAPI
    checkout: Checkout
    database: Database
    dagster_url: str
    redis: brokers.Server
    pgbouncer: brokers.Server
    workers: list[psutil.Process] = field(default_factory=list)
    killed_run: str = ""

    @property
    def dagster_home(self) -> Path:
        """Where the instance configuration is."""
        return self.checkout.folder / ".local" / "dagster"

    def statuses(self) -> dict[str, int]:
        """Recordings by state."""
        query = "SELECT status, count(*) FROM embedding_queue GROUP BY status"
        return {row[0]: row[1] for row in rows(self.database, query)}

    def runs(self) -> list[dict[str, Any]]:
        """Dagster's runs of the worker job: id, status, and the message of a failure."""
        with psycopg.connect(self.dagster_url) as connection:
            found = connection.execute(
                "SELECT run_id, status, (SELECT string_agg(event, ' ') FROM event_logs"
                " WHERE event_logs.run_id = runs.run_id"
                " AND dagster_event_type = 'PIPELINE_FAILURE')"
                " FROM runs WHERE pipeline_name = 'embed_recordings'"
            ).fetchall()
        return [{"run_id": r[0], "status": r[1], "failure": r[2] or ""} for r in found]

    def holders(self) -> set[str]:
        """The runs that hold recordings now."""
        query = "SELECT DISTINCT claimed_by FROM embedding_queue WHERE status = 'processing'"
        return {row[0] for row in rows(self.database, query)}


@contextmanager
def _process(checkout: Checkout, name: str, *command: str) -> Iterator[psutil.Process]:
    """A long-running program of the installation, in a process group of its own."""
    environment = {**checkout.environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = f"{checkout.folder}:{checkout.folder / DEPLOY}"
    environment["DAGSTER_HOME"] = str(checkout.folder / ".local" / "dagster")
    with (checkout.folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=checkout.folder,
            env={"HOME": str(checkout.folder), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        kill_host(process.pid)
        process.wait(timeout=20)


def kill_host(group: int) -> None:
    """Kills a worker and its tasks at once, as if their host had lost its power."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """300 recordings that wait for three workers, which have just been started."""
    folder = Path(tempfile.mkdtemp(prefix="ea-celery-"))
    folder.chmod(0o711)  # the server's user must get to its data
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = EmbeddedPostgres(folder / "postgres")
        server.ensure_running()
        stack.callback(server.stop)
        for name in (APPLICATION_DATABASE, DAGSTER_DATABASE):
            server.ensure_database(name)
        redis = brokers.redis(folder)
        direct = server.url(APPLICATION_DATABASE)
        pgbouncer = brokers.pgbouncer(folder, server.socket_dir)
        for each in (redis, pgbouncer):
            each.start()
            stack.callback(each.stop)
        dagster_url = server.url(DAGSTER_DATABASE)
        storage = dagster_url.replace("postgresql:", "postgresql+psycopg2:", 1)
        api = stack.enter_context(LoopbackAPI(dimensions=DIMENSIONS, latency=6.0))
        checkout = Checkout(
            folder / "main",
            DATABASE_URL=f"postgresql://postgres@/{APPLICATION_DATABASE}"
            f"?host={pgbouncer.socket.parent}&port={brokers.PORT}",
            INDEX_DATABASE_URL=direct,
            DAGSTER_PG_URL=storage,
            DAGSTER_YAML=str(DEPLOY / "dagster.yaml"),
            CELERY_BROKER_URL=f"redis+socket://{redis.socket}",
            CELERY_RESULT_BACKEND=f"db+{storage}",
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=api.base_url,
            EMBEDDING_CONCURRENCY="1",
            MAX_WORKERS=str(WORKERS),
            EMBED_PENDING_CRON="* * * * *",
            LEASE_SECONDS=str(LEASE_SECONDS),
        )
        shutil.copytree(ROOT / DEPLOY, checkout.folder / DEPLOY)
        checkout("init")
        path = folder / "calls.jsonl"
        with path.open("w") as file:
            write_jsonl(generate(RECORDINGS, 0, 9), file)
        checkout("import", path)
        database = stack.enter_context(Database(direct))
        running = Cluster(api, checkout, database, dagster_url, redis, pgbouncer)
        for number in range(WORKERS):
            command = ["celery", "-A", "dagster_celery.app", "worker", "--concurrency", "1"]
            command += ["--hostname", f"worker-{number}@%h", "--loglevel", "INFO"]
            worker = stack.enter_context(_process(checkout, f"worker-{number}", *command))
            running.workers.append(worker)
        daemon = ["dagster-daemon", "run", "-w", "workspace.yaml"]
        stack.enter_context(_process(checkout, "daemon", *daemon))
        yield running


def test_1_three_hosts_share_the_work(cluster: Cluster) -> None:
    holders = until(
        "three runs that hold recordings",
        lambda: found if len(found := cluster.holders()) == WORKERS else set(),
    )
    assert len(holders) == WORKERS


def test_2_a_host_dies_and_redis_and_pgbouncer_are_restarted(cluster: Cluster) -> None:
    until("something is published", lambda: cluster.statuses().get("completed", 0) >= 20)
    before = cluster.holders()
    cluster.workers[0].send_signal(signal.SIGSTOP)  # nothing of it is running when it is killed
    kill_host(cluster.workers[0].pid)
    brokers.restart(cluster.redis, 3)
    brokers.restart(cluster.pgbouncer, 3)
    assert cluster.statuses().get("completed", 0) < RECORDINGS
    cluster.api.latency = 0.1
    failed = until(
        "the run of the dead host is reported failed",
        lambda: [r for r in cluster.runs() if "its process died" in r["failure"]],
    )
    assert [run["run_id"] in before for run in failed] == [True]
    cluster.killed_run = failed[0]["run_id"]


def test_3_everything_is_published_once_without_a_hand(cluster: Cluster) -> None:
    until(
        "every recording is completed",
        lambda: cluster.statuses() == {"completed": RECORDINGS},
        seconds=300,
    )
    published = rows(
        cluster.database,
        "SELECT count(*) AS times, count(DISTINCT recording_id) FROM embedding_attempts"
        " WHERE outcome = 'published'",
    )
    assert published == [(RECORDINGS, RECORDINGS)]
    # Only what the dead host had sent and not stored was sent again: one request.
    twice = cluster.api.stats.sent_twice
    assert len(twice) <= 256
    incomplete = rows(
        cluster.database,
        "SELECT q.recording_id FROM embedding_queue q LEFT JOIN transcript_chunks c"
        " USING (recording_id) LEFT JOIN chunk_embeddings e USING (content_hash)"
        " GROUP BY q.recording_id, q.chunk_count HAVING count(e.id) <> q.chunk_count",
    )
    assert incomplete == []


def test_4_no_living_run_was_taken_for_dead(cluster: Cluster) -> None:
    until(
        "all runs have ended",
        lambda: not {run["status"] for run in cluster.runs()} - {"SUCCESS", "FAILURE"},
    )
    failed = [run for run in cluster.runs() if run["status"] == "FAILURE"]
    assert [run["run_id"] for run in failed] == [cluster.killed_run], failed


TERMINATE = """
import sys, dagster as dg
with dg.DagsterInstance.get() as instance:
    instance.report_run_canceling(instance.get_run_by_id(sys.argv[1]))
    assert instance.run_launcher.terminate(sys.argv[1])
"""


def test_5_a_run_that_a_person_terminates_gives_back_what_it_holds(cluster: Cluster) -> None:
    cluster.api.latency = 60
    before = {run["run_id"] for run in cluster.runs()}
    path = cluster.checkout.folder / "more.jsonl"
    with path.open("w") as file:
        write_jsonl(generate(1, 0, 10), file)
    cluster.checkout("import", path)
    (run,) = until("a run that holds it", cluster.holders)
    assert run not in before
    cluster.checkout.run(
        "python", "-c", TERMINATE, run, env={"DAGSTER_HOME": str(cluster.dagster_home)}
    )
    cluster.api.latency = 0
    until("it is completed", lambda: cluster.statuses() == {"completed": RECORDINGS + 1})
    ended = {each["run_id"]: each["status"] for each in cluster.runs()}
    assert ended[run] == "CANCELED"
