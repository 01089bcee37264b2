"""A hundred runs at once behind a transaction-pooling PgBouncer with a few connections."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Database
from embedding_assets.engine.in_flight import Lane
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session
from embedding_assets_tests.calls import add_call, rows, talk
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.machine import needing
from embedding_assets_tests.system import brokers
from embedding_assets_tests.system.conftest import DIMENSIONS

RUNS = 100
RECORDINGS = 300
POOL = 10  # connections of PgBouncer to Postgres

pytestmark = needing("PgBouncer")


@pytest.fixture
def pooler(server: EmbeddedPostgres) -> Iterator[brokers.Server]:
    folder = Path(tempfile.mkdtemp(prefix="ea-pooler-"))
    folder.chmod(0o711)
    pgbouncer = brokers.pgbouncer(folder, server.socket_dir, pool=POOL)
    pgbouncer.start()
    yield pgbouncer
    pgbouncer.stop()
    shutil.rmtree(folder)


@pytest.mark.timeout(300)
def test_a_hundred_runs_at_once_need_no_more_connections_than_the_pool_has(
    database: Database,
    database_url: str,
    server: EmbeddedPostgres,
    pooler: brokers.Server,
    api: LoopbackAPI,
) -> None:
    with database.transaction() as connection:
        for number in range(RECORDINGS):
            add_call(connection, f"r{number}", talk(f"call {number}", 5))
    settings = Settings(
        database_url=database_url.replace(
            f"host={server.socket_dir}", f"host={pooler.socket.parent}"
        ).replace("port=5432", f"port={brokers.PORT}"),
        embedding_provider="openai",
        embedding_dimensions=DIMENSIONS,
        openai_api_key="k",
        openai_base_url=api.base_url,
    )
    everybody = threading.Barrier(RUNS)
    most = 0

    def run(number: int) -> int:
        with open_session(settings, f"run {number}", lane=Lane.standard, insert_batch=None) as mine:
            everybody.wait()
            return sum(1 for _ in mine.due())

    def count(ended: threading.Event) -> None:
        nonlocal most
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not ended.wait(0.02):
                row = connection.execute(query).fetchone()
                assert row is not None
                most = max(most, row[0] - 2)  # this one and the fixture's

    with meanwhile(count), ThreadPoolExecutor(RUNS) as runs:
        done = list(runs.map(run, range(RUNS)))
    assert sum(done) == RECORDINGS
    assert rows(database, "SELECT status, count(*) FROM embedding_queue GROUP BY status") == [
        ("completed", RECORDINGS)
    ]
    assert 0 < most <= POOL
    assert api.stats.sent_twice == []
