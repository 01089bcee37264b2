"""What Dagster costs: a run, a recording in the worker, a recording in a range of partitions.

At 1,000 partitions and at 100,000; the recordings have one chunk each, and the API answers at once.
"""

import statistics
import sys
from collections.abc import Callable

import psycopg

from benchmarks.growth import DIMENSIONS, LONGEST_A_RECORDING, add_recordings
from benchmarks.measuring import Figure, Installation, Spent, installation, loopback_api, measured
from embedding_assets.defs.partitions import RECORDINGS

WORKED = 1_000  # recordings that a worker embeds
RANGE = 50  # partitions of one run
PARTITIONS = (1_000, 100_000)
ROUNDS = 3

FORGET = """
UPDATE embedding_queue SET status = 'pending', next_attempt_at = now(), claimed_by = NULL,
    lease_expires_at = NULL;
DELETE FROM transcript_chunks;
DELETE FROM chunk_embeddings;
"""
# As Dagster's own storage keeps them; through its API, 100,000 take minutes.
PARTITION = """
INSERT INTO dynamic_partitions (partitions_def_name, partition)
SELECT %(name)s, 'other-' || to_char(n, 'FM0000000')
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
SESSIONS = "SELECT sum(sessions)::int FROM pg_stat_database WHERE datname = ANY(%s)"


def measure() -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        add_recordings(there, 1, WORKED)
        there.command("run")
        partitions = WORKED
        for count in PARTITIONS:
            _add_partitions(there, count - partitions)
            partitions = count
            figures += _worker(there, f"{count:,} partitions")
            figures += _ranges(there, f"{count:,} partitions")
    return figures


def _worker(there: Installation, at: str) -> list[Figure]:
    there.command("run")  # reads what the next ones find in memory
    idle, idle_sessions = _counted(there, lambda: there.command("run"))
    _forget(there)
    busy, busy_sessions = _counted(there, lambda: there.command("run"))
    milliseconds = (busy.wall - idle.wall) * 1000 / WORKED
    return [
        Figure(f"a worker's run without work, {at}", idle.wall, "s"),
        Figure(f"a worker's run without work, {at}: client CPU", idle.cpu, "s"),
        Figure(f"a worker's run without work, {at}: connections", idle_sessions, "opened"),
        Figure(
            f"a recording in the worker, {at}",
            milliseconds,
            "ms",
            aim="< 10",
            reached=milliseconds < LONGEST_A_RECORDING,
        ),
        Figure(
            f"a recording in the worker, {at}: client CPU",
            (busy.cpu - idle.cpu) * 1000 / WORKED,
            "ms",
        ),
        Figure(
            f"a recording in the worker, {at}: connections",
            (busy_sessions - idle_sessions) / WORKED,
            "opened",
        ),
    ]


def _ranges(there: Installation, at: str) -> list[Figure]:
    """Whole runs, the median of a few: a difference of two would be noise."""
    runs = []
    for _ in range(ROUNDS):
        _forget(there)
        runs.append(_counted(there, lambda: _materialize(there, 1, RANGE)))
    what = f"a range of {RANGE}, {at}"
    return [
        Figure(what, statistics.median(spent.wall for spent, _ in runs), "s"),
        Figure(f"{what}: client CPU", statistics.median(spent.cpu for spent, _ in runs), "s"),
        Figure(f"{what}: connections", statistics.median(opened for _, opened in runs), "opened"),
    ]


def _materialize(there: Installation, first: int, last: int) -> Spent:
    return measured(
        [sys.executable, "-m", "benchmarks.orchestration", _key(first), _key(last)],
        {**there.environment, **there.dagster_environment()},
    )


def materialize(first: str, last: str) -> None:
    """Runs a range of partitions in this process, as a backfill's run does in its own."""
    import dagster as dg  # noqa: PLC0415  (two seconds of imports)

    from embedding_assets.definitions import defs  # noqa: PLC0415

    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    with dg.DagsterInstance.get() as instance:
        defs.resolve_job_def("embed_recording").execute_in_process(instance=instance, tags=tags)


def _key(number: int) -> str:
    return f"call-{number:07}"


def _counted(there: Installation, run: Callable[[], Spent]) -> tuple[Spent, int]:
    """What a run took, and the connections it opened to both databases."""
    before = _sessions(there)
    spent = run()
    return spent, _sessions(there) - before


def _sessions(there: Installation) -> int:
    with psycopg.connect(there.server.url(), autocommit=True) as connection:
        row = connection.execute(SESSIONS, [["dagster", "embedding_assets"]]).fetchone()
    assert row is not None
    return int(row[0])


def _forget(there: Installation) -> None:
    with there.connect() as connection:
        connection.execute(FORGET)


def _add_partitions(there: Installation, count: int) -> None:
    if count:
        with psycopg.connect(there.dagster_url, autocommit=True) as connection:
            connection.execute(PARTITION, {"name": RECORDINGS, "first": 1, "last": count})


if __name__ == "__main__":
    materialize(*sys.argv[1:])
