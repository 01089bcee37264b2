import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.recorders.samples.generate import generate
from embedding_assets.recorders.upsert import upsert
from embedding_assets_tests.calls import rows
from embedding_assets_tests.system.conftest import (
    DIMENSIONS,
    PROCESSES,
    engine_environment,
    engine_process,
)
from embedding_assets_tests.system.worker import Report

WORKERS = 8
RECORDINGS = 300


@pytest.fixture
def api_url() -> Iterator[str]:
    """The API as a process of its own, so that it does not share the test's interpreter lock."""
    options = ["--latency-ms", "20", "--dimensions", str(DIMENSIONS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "embedding_assets_tests.loopback_api", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _times_answered(api_url: str) -> Counter[str]:
    """How often the API embedded each text, by hash."""
    url = api_url.removesuffix("/v1") + "/_stats"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (http, on this machine)
        return Counter(json.load(answer)["inputs"])


def test_eight_workers_publish_each_of_300_recordings_once(
    database: Database, database_url: str, api_url: str
) -> None:
    for recording in generate(RECORDINGS, 0, seed=1):
        upsert(database, recording)
    environment = engine_environment(database_url, api_url)
    start = PROCESSES.Barrier(WORKERS)
    pipes = [PROCESSES.Pipe(duplex=False) for _ in range(WORKERS)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(engine_process(environment, f"worker-{n}", start=start, home=home))
            for n, (_, home) in enumerate(pipes)
        ]
        for _, home in pipes:
            home.close()  # the worker has it: if it dies, receiving ends
        reports: list[Report] = [inbox.recv() for inbox, _ in pipes]
        for worker in workers:
            worker.join(timeout=60)
        assert [worker.exitcode for worker in workers] == [0] * WORKERS
    assert [report.errors for report in reports] == [[]] * WORKERS
    published = [recording_id for report in reports for recording_id in report.published]
    assert len(set(published)) == len(published) == RECORDINGS
    attempts = (
        "SELECT outcome, count(*) AS attempts, count(DISTINCT recording_id) AS recordings"
        " FROM embedding_attempts GROUP BY outcome"
    )
    assert rows(database, attempts) == [("published", RECORDINGS, RECORDINGS)]
    assert rows(
        database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]
    # Nobody went home while there was something to take, and the work was shared.
    assert [report.claimable for report in reports] == [[]] * WORKERS
    assert sum(bool(report.published) for report in reports) >= WORKERS // 2
    # No two of these recordings have a text in common.
    texts = rows(database, "SELECT DISTINCT encode(content_hash, 'hex') FROM transcript_chunks")
    assert _times_answered(api_url) == {text: 1 for (text,) in texts}
