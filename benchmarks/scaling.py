"""How much more several workers publish than one, where the work is to wait for the API.

An API that takes 200 ms for a request of at most 4,000 tokens, asked by each worker for one at a
time, as with small accounts: so that two cores are not what four workers wait for. Counted is what
is published while all of them work, from the last one's first publication to the first one's last.
"""

import subprocess
import sys
from statistics import median

from benchmarks.measuring import ROOT, Figure, Installation, at_least, installation, loopback_api
from benchmarks.throughput import empty

RECORDINGS = 160
DIMENSIONS = 64
LATENCY_MS = 200
WORKERS = {1: None, 2: 1.8, 4: 3.2}  # and how many times one worker's rate is the aim
ROUNDS = 2
RATE = """
    WITH by_run AS (
        SELECT min(finished_at) AS first, max(finished_at) AS last
        FROM embedding_attempts WHERE outcome = 'published' GROUP BY run_id
    ), together AS (SELECT max(first) AS since, min(last) AS until FROM by_run)
    SELECT count(*) / extract(epoch FROM until - since)::float8
    FROM embedding_attempts, together
    WHERE outcome = 'published' AND finished_at > since AND finished_at <= until
    GROUP BY since, until
"""


def measure() -> list[Figure]:
    """All figures of this module."""
    rates: dict[int, list[float]] = {number: [] for number in WORKERS}
    settings = {
        "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "EMBEDDING_CONCURRENCY": "1",
        "EMBEDDING_MAX_REQUEST_TOKENS": "4000",
    }
    with installation(**settings) as there, loopback_api(LATENCY_MS, DIMENSIONS) as api:
        there.environment.update(api | settings)
        there.load(RECORDINGS)
        for _ in range(ROUNDS):
            for number, found in rates.items():
                found.append(_rate(there, number))
    one = median(rates[1])
    figures = []
    for number, aim in WORKERS.items():
        rate = median(rates[number])
        what = f"workers at {LATENCY_MS} ms: {number}"
        figures.append(
            Figure(what, rate, "recordings/s", rate / one, "one", **at_least(aim, rate / one))
        )
    return figures


def _rate(there: Installation, workers: int) -> float:
    """Recordings a second of so many workers at once."""
    empty(there)
    command = [sys.executable, "-m", "benchmarks.worker"]
    started = [subprocess.Popen(command, env=there.environment, cwd=ROOT) for _ in range(workers)]
    for each in started:
        assert each.wait(timeout=600) == 0
    with there.connect() as connection:
        row = connection.execute(RATE).fetchone()
    assert row is not None
    return float(row[0])
