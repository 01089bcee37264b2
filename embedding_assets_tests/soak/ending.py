"""What must be so once everything has come to rest: as if nobody had been killed."""

import re
import time
from collections import Counter
from collections.abc import Callable

import psycopg

from embedding_assets.engine import queue
from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import rows
from embedding_assets_tests.soak.corpus import SEEN, Corpus
from embedding_assets_tests.soak.installation import Installation
from embedding_assets_tests.soak.killing import Kill

REST_SECONDS = 600.0  # in which all that is due is done, on a machine that is busy
QUEUED = "SELECT recording_id FROM embedding_queue"
# Most are reported within a lease and a sensor's tick; those of jobs without a heartbeat when
# their time is over, which is ten minutes for the longest of those that run here.
REPORT_SECONDS = 900.0
REPORTED = """
    SELECT run_id, end_time FROM runs WHERE run_id = ANY(%s) AND status <> 'SUCCESS'
"""
PARTITIONS = "SELECT partition FROM dynamic_partitions WHERE partitions_def_name = 'recordings'"
RUNS = """
    SELECT pipeline_name AS job, status, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2
"""
ERROR = re.compile(r"\b(ERROR|CRITICAL|Traceback)\b|Error\b")
LOG_LINES = 40


def come_to_rest(
    running: Installation, database: Database, tell: Callable[[str], None]
) -> list[str]:
    """Waits until nothing is due; retries what a person would. Tells what is left after long."""
    deadline = time.monotonic() + REST_SECONDS
    query = "SELECT status, count(*) FROM embedding_queue WHERE status <> 'completed' GROUP BY 1"
    retried: Counter[str] = Counter()
    while left := rows(database, query):
        if time.monotonic() > deadline:
            return [f"not at rest after {REST_SECONDS:.0f} s: {dict(left)}"]
        for part in running.parts:
            part.restart_if_ended()
        with database.transaction() as connection:
            dead = connection.execute(
                "SELECT recording_id, error_kind FROM embedding_queue WHERE status = 'dead_letter'"
            ).fetchall()
            queue.retry(connection, [row.recording_id for row in dead], force=True)
        retried.update(row.error_kind for row in dead)
        time.sleep(2)
    tell(f"at rest; dead letters retried: {dict(retried)}")
    # Only three kills of a process that held a recording alone make a dead letter here.
    return [f"{n} dead letters of the kind {kind}" for kind, n in retried.items()
            if kind != "crashed"]  # fmt: skip


def not_as_it_should_be(database: Database, corpus: Corpus) -> list[str]:
    """What is not as if nobody had been killed: chunks, vectors, the queue."""
    amiss = []
    seen = {(row.recording_id, row.digest) for row in rows(database, SEEN)}
    current = corpus.current()
    amiss += [f"{each} is not published as it is now" for each, _ in current - seen]
    amiss += [f"{each} is published and should not be" for each, _ in seen - current]
    queued = {
        row.recording_id for row in rows(database, "SELECT recording_id FROM embedding_queue")
    }
    amiss += [f"{each} has no row in the queue" for each in set(corpus.there) - queued]
    amiss += [f"{each} is deleted and still queued" for each in queued - set(corpus.there)]
    without_vector = rows(
        database,
        "SELECT DISTINCT recording_id FROM transcript_chunks AS chunks WHERE NOT EXISTS ("
        " SELECT FROM chunk_embeddings AS stored"
        " WHERE stored.content_hash = chunks.content_hash)",
    )
    return [*amiss, *(f"{row.recording_id} lacks vectors" for row in without_vector)]


def partitions_amiss(running: Installation, corpus: Corpus) -> list[str]:
    """Calls without a partition, and the other way round, once the sensor had its time."""
    deadline = time.monotonic() + REST_SECONDS
    with psycopg.connect(running.dagster_url, autocommit=True) as connection:
        while True:
            keys = {str(row[0]) for row in connection.execute(PARTITIONS)}
            if keys == set(corpus.there):
                return []
            if time.monotonic() > deadline:
                return [f"{each} is a call or a partition" for each in keys ^ set(corpus.there)]
            running.dev.restart_if_ended()
            time.sleep(2)


def runs(
    running: Installation, kills: list[Kill]
) -> tuple[dict[str, int], dict[str, float | None]]:
    """Runs by job and state; and how soon each killed one was reported, None: not yet."""
    at = {kill.run_id: kill for kill in kills if kill.run_id is not None}
    with psycopg.connect(running.dagster_url, application_name="soak") as connection:
        runs = {f"{job} {status}": n for job, status, n in connection.execute(RUNS)}
        ended = connection.execute(REPORTED, [list(at)]).fetchall()
    return runs, {
        run_id: None if end is None else round(max(0.0, end - at[run_id].at), 1)
        for run_id, end in ended
    }


def last_errors(running: Installation) -> list[str]:
    """The last lines of the programs' logs that tell of an error."""
    lines = []
    for part in running.parts:
        text = (running.checkout.folder / f"{part.name}.log").read_text(errors="replace")
        told = [line for line in text.splitlines() if ERROR.search(line)]
        lines += [f"{part.name}: {line[:300]}" for line in told[-LOG_LINES:]]
    return lines


def unreported(kills: list[Kill], seconds: dict[str, float | None]) -> list[str]:
    """Killed runs that Dagster shows as running long afterwards."""
    long_ago = time.time() - REPORT_SECONDS
    return [
        f"the killed run {kill.run_id} of {kill.what} is not reported after {REPORT_SECONDS:.0f} s"
        for kill in kills
        if kill.run_id in seconds and seconds[kill.run_id] is None and kill.at < long_ago
    ]
