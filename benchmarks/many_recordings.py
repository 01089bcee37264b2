"""A million recordings: ticks and a worker's start, with partitions of all and of the last months.

The rows are written straight into the tables, as a system leaves them that has published it all,
one segment a recording; without chunks and vectors, which `vector_index` and `search_latency`
measure. It takes some ten minutes, so `python -m benchmarks` runs it only when told to:
--only many_recordings.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import psycopg

from benchmarks.growth import DIMENSIONS, page, ticks_of
from benchmarks.measuring import (
    Figure,
    Installation,
    dagster_webserver,
    installation,
    loopback_api,
)
from embedding_assets.defs.partitions import RECORDINGS
from embedding_assets.settings import Settings

RECORDED = 1_000_000
YEARS = 10  # over which they were recorded
MONTHS = 6
ROUNDS = 3
LONGEST = 1.0  # seconds that a tick and a worker's start may take, the aim
KEYS_TIMED = 200

TABLES = (
    """
    INSERT INTO fathom_calls (recording_id, title, recorded_at, duration, url, recorded_by_name,
        recorded_by_email, source_platform, user_id)
    SELECT 'call-' || to_char(n, 'FM0000000'), 'The weekly meeting of the team ' || n,
        now() - make_interval(secs => (%(size)s - n) * (%(years)s * 31557600.0 / %(size)s)),
        1800, 'https://fathom.video/calls/' || n, 'Ann Example', 'ann@example.com', 'fathom',
        'user-' || n %% 500
    FROM generate_series(1, %(size)s::int) AS n
    """,
    """
    INSERT INTO fathom_transcripts (recording_id, position, speaker_name, text)
    SELECT 'call-' || to_char(n, 'FM0000000'), 0, 'Ann',
        'In call ' || n || ' we spoke of topic ' || n * 7919::bigint %% 100003 || ' at length.'
    FROM generate_series(1, %(size)s::int) AS n
    """,
    # The version as `transcript_version` computes it, or workers would take all for changed.
    """
    INSERT INTO embedding_queue (recording_id, status, transcript_version, chunk_count,
        token_count, completed_at)
    SELECT calls.recording_id, 'completed', encode(sha256(convert_to(
        ROW(calls.title, extract(epoch FROM calls.recorded_at),
            extract(epoch FROM calls.created_at), calls.user_id)::text
        || ROW(said.position, said.speaker_name, said.text, said.start_seconds,
               said.end_seconds)::text, 'UTF8')), 'hex'), 1, 30, now()
    FROM fathom_calls AS calls JOIN fathom_transcripts AS said USING (recording_id)
    ORDER BY calls.recording_id
    """,
    """
    INSERT INTO published_recordings (recording_id, title, recorded_at, duration, url,
        source_platform, user_id, speaker_names, chunk_count, cut_as)
    SELECT recording_id, title, recorded_at, duration, url, source_platform, user_id,
        ARRAY['ann'], 1, %(cut_as)s
    FROM fathom_calls ORDER BY recording_id
    """,
)
# As Dagster's own storage keeps them; through its API a million would take an hour.
KEYS = """
INSERT INTO dynamic_partitions (partitions_def_name, partition)
SELECT %s, unnest(%s::text[])
"""
EDIT = """
UPDATE fathom_transcripts SET edited_text = coalesce(edited_text, text) || ' Indeed.'
WHERE recording_id = %s
"""
NOT_COMPLETED = "SELECT count(*) FROM embedding_queue WHERE status <> 'completed'"
WITHIN = (
    "SELECT recording_id FROM fathom_calls WHERE recorded_at >= now() - make_interval(months => %s)"
)


def measure(size: int = RECORDED) -> list[Figure]:
    """All figures of this module."""
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        there.command("run")  # makes Dagster's tables
        add_published(there, size)
        everything = [f"call-{number:07}" for number in range(1, size + 1)]
        _replace_keys(there, everything)
        figures = _at(there, f"{size:,} recordings, a partition each", everything, aims=False)
        there.environment["PARTITION_MONTHS"] = str(MONTHS)
        figures.append(_first_tick(there, f"{size:,} recordings, with {size:,} partitions to go"))
        with there.connect() as connection:
            lately = [row[0] for row in connection.execute(WITHIN, [MONTHS])]
        _replace_keys(there, lately)
        at = f"{size:,} recordings, partitions of {MONTHS} months ({len(lately):,})"
        figures += _at(there, at, everything, aims=True)
        return figures + _keys(there)


def add_published(there: Installation, size: int) -> None:
    """Puts published recordings where the recorder and the engine would."""
    parameters = {"size": size, "years": YEARS, "cut_as": "330/50/460"}
    with there.connect() as connection:
        connection.execute("SET session_replication_role = replica")  # nothing is queued by it
        for statement in TABLES:
            connection.execute(statement, parameters)
        connection.execute("VACUUM ANALYZE")


def _replace_keys(there: Installation, keys: list[str]) -> None:
    with psycopg.connect(there.dagster_url, autocommit=True) as connection:
        connection.execute("TRUNCATE dynamic_partitions")
        connection.execute(KEYS, [RECORDINGS, keys])
        connection.execute("VACUUM ANALYZE dynamic_partitions")


def _at(there: Installation, at: str, ids: list[str], *, aims: bool) -> list[Figure]:
    figures: list[Figure] = []
    for name, (seconds, cpu) in sorted(ticks_of(there).items()):
        if name.startswith("tick of"):
            figures.append(_timed(f"{name}, {at}", seconds, aims=aims))
            figures.append(Figure(f"{name}, {at}: client CPU", cpu, "s"))
    # Each a recording of its own, the oldest ones.
    starts = [_start(there, ids[number]) for number in range(ROUNDS)]
    imported, claimed, ended = (sorted(each)[ROUNDS // 2] for each in zip(*starts, strict=True))
    figures += [
        _timed(f"a worker's start until its first claim, after imports, {at}", claimed, aims=aims),
        Figure(f"imports before it, {at}", imported, "s"),
        Figure(f"a worker's whole run for one recording, after imports, {at}", ended, "s"),
    ]
    with dagster_webserver(there) as url:
        figures.append(Figure(f"the asset's page, {at}: its queries", page(url), "s"))
    return figures


def _timed(what: str, seconds: float, *, aims: bool) -> Figure:
    if not aims:
        return Figure(what, seconds, "s")
    return Figure(what, seconds, "s", aim="< 1", reached=seconds < LONGEST)


def _first_tick(there: Installation, at: str) -> Figure:
    tick = "tick of discover_recordings"
    return Figure(f"{tick}, {at}", ticks_of(there)[tick][0], "s")


def _start(there: Installation, recording_id: str) -> tuple[float, float, float]:
    """Seconds of a worker's imports, from then to its first claim, and to its end."""
    with there.connect() as connection:
        connection.execute(EDIT, [recording_id])
        begun = time.time()
        spent = there.python("-m", "benchmarks.many_recordings", "start")
        row = connection.execute(
            "SELECT extract(epoch FROM started_at)::float FROM embedding_queue"
            " WHERE recording_id = %s",
            [recording_id],
        ).fetchone()
        left = connection.execute(NOT_COMPLETED).fetchone()
    assert row is not None
    assert left == (0,)  # the rows are as a system leaves them: nothing else was due
    imported, ended = json.loads(spent.output.splitlines()[-1])
    return imported - begun, row[0] - imported, ended - imported


def start() -> None:
    """Runs a worker in this process; prints when it had imported everything, and when it ended."""
    from embedding_assets.cli.running import run_worker  # noqa: PLC0415
    from embedding_assets.server.installation import dagster_environment  # noqa: PLC0415

    settings = Settings()
    os.environ.update(dagster_environment(settings))
    import embedding_assets.definitions  # noqa: F401, PLC0415  (two seconds)

    imported = time.time()
    summary = run_worker(settings, lane="standard")
    assert summary.success
    assert summary.processed == 1
    print(json.dumps([imported, time.time()]))


def _keys(there: Installation) -> list[Figure]:
    """What it takes to add and to delete partitions, as a worker and as the daemon do it."""
    spent = there.python("-m", "benchmarks.many_recordings", "keys")
    seconds: dict[str, float] = json.loads(spent.output.splitlines()[-1])
    return [Figure(name, value * 1000, "ms a partition") for name, value in seconds.items()]


def keys() -> None:
    """Prints the seconds of each partition, as JSON."""
    import dagster as dg  # noqa: PLC0415  (two seconds of imports)

    from embedding_assets.defs.partitions import MOST_KEYS_A_REQUEST  # noqa: PLC0415
    from embedding_assets.server.installation import dagster_environment  # noqa: PLC0415

    os.environ.update(dagster_environment(Settings()))
    many = [f"more-{number}" for number in range(MOST_KEYS_A_REQUEST)]
    with dg.DagsterInstance.get() as instance:
        started = time.monotonic()
        instance.add_dynamic_partitions(RECORDINGS, many)
        seconds = {
            f"a worker adds {len(many):,} partitions": (time.monotonic() - started) / len(many)
        }
        one_by_one: dict[str, Callable[[str, str], object]] = {
            "the daemon asks for a partition": instance.has_dynamic_partition,
            "the daemon deletes one": instance.delete_dynamic_partition,
        }
        for name, work in one_by_one.items():
            started = time.monotonic()
            for key in many[:KEYS_TIMED]:
                work(RECORDINGS, key)
            seconds[name] = (time.monotonic() - started) / KEYS_TIMED
        print(json.dumps(seconds))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start"]:
            start()
        case ["keys"]:
            keys()
        case arguments:
            for figure in measure(*(int(size) for size in arguments)):
                print(figure)
