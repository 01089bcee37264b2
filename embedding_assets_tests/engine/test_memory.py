import subprocess
import sys

import pytest

from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import add_call, rows
from embedding_assets_tests.loopback_api import LoopbackAPI

WORKER = """
import resource, sys
from pathlib import Path
from embedding_assets.engine.in_flight import Lane
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session

with open_session(Settings(), "memory", lane=Lane.standard, insert_batch=None) as session:
    for outcome in session.these([sys.argv[1]]):
        assert outcome.error is None, outcome
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss would also tell of the process that started this one
    (line,) = [each for each in status.read_text().splitlines() if each.startswith("VmHWM")]
    print(int(line.split()[1]) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2)
"""


@pytest.mark.slow
def test_a_recording_of_20000_segments_embeds_within_600_mb(
    database: Database, database_url: str
) -> None:
    with database.transaction() as connection:
        for recording_id, segments in (("short", 2_000), ("long", 20_000)):
            text = "We were saying in sentence {} of {} that the importer needs its own release."
            add_call(
                connection, recording_id, [text.format(n, recording_id) for n in range(segments)]
            )
    with LoopbackAPI() as api:
        peaks = {name: _peak(database_url, api, name) for name in ("short", "long")}
    assert rows(database, "SELECT count(*) FROM embedding_queue WHERE status = 'completed'") == [
        (2,)
    ]
    assert peaks["long"] < 600
    # Ten times the text costs the text itself, some copies of it, and requests that are full.
    assert peaks["long"] - peaks["short"] < 100


def _peak(database_url: str, api: LoopbackAPI, recording_id: str) -> int:
    """Megabytes resident at the most in a process that embeds one recording."""
    environment = {
        "DATABASE_URL": database_url,
        "EMBEDDING_PROVIDER": "openai",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": api.base_url,
    }
    run = subprocess.run(
        [sys.executable, "-c", WORKER, recording_id],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    return int(run.stdout)
