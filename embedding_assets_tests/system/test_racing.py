import json
from contextlib import ExitStack

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.importers.upsert import upsert
from embedding_assets.samples.generate import generate
from embedding_assets_tests.engine.conftest import rows
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.system.conftest import engine_environment, engine_process

WORKERS = 8
RECORDINGS = 300


@pytest.mark.slow
def test_eight_workers_publish_each_of_300_recordings_once(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    for recording in generate(RECORDINGS, 0, seed=1):
        upsert(database, recording)
    environment = engine_environment(database_url, api)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(engine_process(f"worker-{n}", environment)) for n in range(WORKERS)
        ]
        outputs = [process.communicate(timeout=200) for process in processes]
    assert [(p.returncode, errors) for p, (_, errors) in zip(processes, outputs, strict=True)] == [
        (0, "")
    ] * WORKERS
    outcomes = [[json.loads(line) for line in printed.splitlines()] for printed, _ in outputs]
    flat = [outcome for each in outcomes for outcome in each]
    assert {outcome["result"] for outcome in flat} == {"published"}
    assert len({outcome["recording_id"] for outcome in flat}) == len(flat) == RECORDINGS
    query = "SELECT outcome, count(DISTINCT recording_id) FROM embedding_attempts GROUP BY outcome"
    assert rows(database, query) == [("published", RECORDINGS)]
    assert rows(database, "SELECT count(*) FROM embedding_attempts") == [(RECORDINGS,)]
    assert rows(
        database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]
    # Work was shared: starting takes longer than some of it, so not every worker gets a part.
    assert sum(bool(each) for each in outcomes) >= 4
