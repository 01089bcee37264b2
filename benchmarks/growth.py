"""What grows with the number of recordings: ticks, claims, health, Dagster's pages and storage.

Recordings are short here (one chunk), so that what is measured is the number of them.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks.measuring import Figure, Installation, dagster_webserver, installation, loopback_api
from embedding_assets.engine.queue import Claims, work_waiting
from embedding_assets.engine.transcripts import source_ids
from embedding_assets.health.system import system_health
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings

SIZES = (1_000, 20_000)  # `python -m benchmarks.growth 1000 100000` takes longer
DIMENSIONS = 64
LONGEST_TICK = 2.0  # seconds, the aim
LONGEST_A_RECORDING = 10.0  # milliseconds, the aim

# What the recorder would write, without its detours.
CALLS = """
INSERT INTO fathom_calls (recording_id, title)
SELECT 'call-' || to_char(n, 'FM0000000'), 'A call'
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
SEGMENTS = """
INSERT INTO fathom_transcripts (recording_id, position, speaker_name, text)
SELECT 'call-' || to_char(n, 'FM0000000'), p, 'Ann',
       'In call ' || n || ' we spoke of topic ' || n * 7919 %% 100003 || ' and of nothing else.'
FROM generate_series(%(first)s::int, %(last)s::int) AS n, generate_series(0, 3) AS p
"""
STORAGE = "SELECT pg_database_size(current_database())"


def measure(sizes: tuple[int, ...] = SIZES) -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        first = 1
        empty = _dagster_bytes(there)
        for size in sizes:
            add_recordings(there, first, size)
            figures += _at(there, size, size - first + 1, empty)
            first = size + 1
    return figures


def _at(there: Installation, size: int, added: int, empty: int) -> list[Figure]:
    at = f"{size:,} recordings"
    due = ticks_of(there)
    spent = there.command("run")
    # The fixed part of a run is measured by one that finds nothing to do.
    idle = there.command("run")
    milliseconds = (spent.wall - idle.wall) * 1000 / added
    figures = [
        Figure(
            f"worker, {at}: each of {added:,} new ones, events included",
            milliseconds,
            "ms",
            aim="< 10",
            reached=milliseconds < LONGEST_A_RECORDING,
        ),
        Figure(f"worker, {at}: client CPU", (spent.cpu - idle.cpu) * 1000 / added, "ms"),
        Figure(f"worker, {at}: peak memory", spent.peak / 2**20, "MiB"),
        Figure(f"a run that finds nothing, {at}", idle.wall, "s"),
        Figure(
            f"Dagster's storage, {at}", (_dagster_bytes(there) - empty) / size, "bytes/recording"
        ),
    ]
    for state, ticks in (("all new ones due", due), ("nothing due", ticks_of(there))):
        for name, (seconds, _) in sorted(ticks.items()):
            aim = {"aim": "< 2", "reached": seconds < LONGEST_TICK} if "tick" in name else {}
            figures.append(Figure(f"{name}, {at}, {state}", seconds, "s", **aim))
    with dagster_webserver(there) as url:
        figures.append(Figure(f"the asset's page, {at}: its queries", page(url), "s"))
    return figures


def add_recordings(there: Installation, first: int, last: int) -> None:
    """Puts short recordings, numbered from `first` to `last`, where the recorder would."""
    with there.connect() as connection:
        for statement in (CALLS, SEGMENTS):
            connection.execute(statement, {"first": first, "last": last})
        connection.execute("VACUUM ANALYZE")


def _dagster_bytes(there: Installation) -> int:
    with closing(psycopg.connect(there.dagster_url)) as connection:
        row = connection.execute(STORAGE).fetchone()
    assert row is not None
    return int(row[0])


PAGE = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    partitionStats { numMaterialized numPartitions numFailed }
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } }
    partitionKeys
    assetMaterializations(limit: 50) { runId partition timestamp } } } }"""


def page(url: str) -> float:
    """Seconds of the second asking; the first one loads the code location."""
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        body = {"query": PAGE, "variables": {"key": {"path": ["transcript_chunks"]}}}
        request = urllib.request.Request(  # noqa: S310  (our own webserver)
            f"{url}/graphql", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            assert "errors" not in json.load(answer)
        seconds = time.monotonic() - started
    return seconds


def ticks_of(there: Installation) -> dict[str, tuple[float, float]]:
    """Each tick and each statement of ticks, in a process of its own: seconds, and client CPU."""
    spent = there.python("-m", "benchmarks.growth")
    seconds: dict[str, tuple[float, float]] = json.loads(spent.output.splitlines()[-1])
    return seconds


def ticks() -> None:
    """Prints the seconds and client CPU that each takes, as JSON; the second time of two."""
    import dagster as dg  # noqa: PLC0415  (two seconds of imports)

    from embedding_assets.definitions import defs  # noqa: PLC0415
    from embedding_assets.server.installation import dagster_environment  # noqa: PLC0415

    settings = Settings()
    os.environ.update(dagster_environment(settings))
    repository = defs.get_repository_def()
    works: dict[str, Callable[[], object]] = {}
    with dg.DagsterInstance.get() as instance, open_database(settings) as database:
        for sensor in repository.sensor_defs:
            works[f"tick of {sensor.name}"] = _sensor(dg, sensor, instance, repository)
        for schedule in repository.schedule_defs:
            works[f"tick of {schedule.name}"] = _schedule(dg, schedule, instance, repository)
        works["reading all recordings"] = lambda: database.retrying(source_ids)
        works["counting what is due"] = lambda: database.retrying(work_waiting)
        works["health query and judgement"] = lambda: system_health(settings)
        works["claiming 20"] = lambda: _claim(database)
        print(json.dumps({name: _second_time(work) for name, work in works.items()}))


def _second_time(work: Callable[[], object]) -> tuple[float, float]:
    """By then everything is loaded."""
    work()
    started, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - started, time.process_time() - cpu


def _claim(database: Any) -> None:
    claims = Claims(database, "benchmark", timedelta(minutes=5))
    for taken, _ in enumerate(claims.due(), 1):
        if taken == 20:
            break
    claims.release()


def _sensor(dg: Any, sensor: Any, instance: Any, repository: Any) -> Callable[[], object]:
    from embedding_assets.defs.resources import EmbeddingEngine  # noqa: PLC0415

    def tick() -> object:
        with dg.build_sensor_context(
            instance=instance,
            instance_ref=instance.get_ref(),
            repository_def=repository,
            sensor_name=sensor.name,
            resources={"engine": EmbeddingEngine()},
        ) as context:
            return sensor.evaluate_tick(context)

    return tick


def _schedule(dg: Any, schedule: Any, instance: Any, repository: Any) -> Callable[[], object]:
    from embedding_assets.defs.resources import EmbeddingEngine  # noqa: PLC0415

    def tick() -> object:
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC),
            repository_def=repository,
            resources={"engine": EmbeddingEngine()},
        ) as context:
            return schedule.evaluate_tick(context)

    return tick


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for figure in measure(tuple(int(size) for size in sys.argv[1:])):
            print(figure)
    else:
        ticks()
