"""One soak from the first call to the verdicts."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from embedding_assets.engine import queue
from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import rows
from embedding_assets_tests.soak.corpus import SEEN, Corpus, Reader
from embedding_assets_tests.soak.installation import Installation, installation
from embedding_assets_tests.soak.judging import Verdict, judge, warm_up_seconds
from embedding_assets_tests.soak.killing import Kill, Killer
from embedding_assets_tests.soak.ledger import Balance, balance
from embedding_assets_tests.soak.sampling import RULES, Sampler
from embedding_assets_tests.soak.work import UNFINISHED, Changes, Searcher, Sweeper

REST_SECONDS = 600.0  # in which all that is due is done, on a machine that is busy
QUEUED = "SELECT recording_id FROM embedding_queue"
REPORTED = """
    SELECT run_id, status, end_time FROM runs WHERE run_id = ANY(%s)
"""
RUNS = """
    SELECT pipeline_name AS job, status, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2
"""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """All that came of a soak; it passed if nothing is amiss."""

    minutes: float
    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)
    balance: Balance = field(default_factory=Balance)
    kills: list[Kill] = field(default_factory=list)
    report_seconds: dict[str, float | None] = field(default_factory=dict)  # of each killed run
    done: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def soak(minutes: float, seed: int, tell: Tell) -> Result:
    """Installs, works, kills, lets everything come to rest, and judges.

    Args:
        minutes: of work; installing and coming to rest take some more.
        seed: of everything that is left to chance, but for what the machine decides.
        tell: gets a line every minute.
    """
    result = Result(minutes, seed)
    with (
        installation() as running,
        Database(running.url, application_name="soak") as database,
    ):
        _soak(running, database, result, tell)
    return result


def _soak(running: Installation, database: Database, result: Result, tell: Tell) -> None:
    seeds = random.Random(result.seed)
    corpus = Corpus(database, seeds.randrange(2**31))
    changes = Changes(database, corpus, seeds.randrange(2**31))
    warm_up = warm_up_seconds(result.minutes)
    reader = Reader(running.url, corpus)
    searcher = Searcher(running, corpus, seeds.randrange(2**31))
    sweeper = Sweeper(running.url)
    sampler = Sampler(running)
    killer = Killer(running, seeds.randrange(2**31), warm_up)
    changes.begin()
    _first_calls_published(running, database)
    for thread in (reader, searcher, sweeper, sampler, killer):
        thread.start()
    _work(running, changes, killer, 60 * result.minutes, tell)
    for thread in (killer, sampler, sweeper, searcher):
        thread.end()
    tell("the work is over: the daemon and the search server are killed once more")
    killer.kill_programs(database)
    result.amiss += _come_to_rest(running, database, tell)
    reader.end()
    questions = searcher.questions
    result.amiss += [*reader.amiss, *searcher.amiss, *sweeper.amiss]
    result.amiss += [*killer.failures, *sampler.failures]
    result.amiss += _not_as_it_should_be(database, corpus)
    result.balance = balance(
        database, running.api.answers, corpus.recordings_of, questions, killer.deaths
    )
    result.amiss += result.balance.amiss
    result.samples = [(at, dict(figures)) for at, figures in sampler.samples]
    result.verdicts = judge(sampler.samples, warm_up, RULES)
    result.amiss += [
        f"{each.name} is not flat: {each.after_warm_up:,.1f} {each.unit} after the warm-up,"
        f" {each.end:,.1f} at the end, {each.allowed:,.1f} allowed"
        for each in result.verdicts
        if each.is_flat is False
    ]
    result.kills = killer.kills
    result.runs, result.report_seconds = _runs(running, killer.kills)
    result.done = {
        **changes.done,
        **{f"searches, {name}": n for name, n in searcher.done.items()},
        "vectors swept": sweeper.swept,
        "alerts": len(running.alerts.hooks),
        "looks of the reader": reader.looks,
        "versions seen": len(reader.seen),
        "kills": len(killer.kills),
    }


def _first_calls_published(running: Installation, database: Database) -> None:
    """What comes first comes all at once; the soak is about what follows."""
    deadline = time.monotonic() + REST_SECONDS
    while rows(database, UNFINISHED)[0][0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the first calls are not published within {REST_SECONDS:.0f} s")
        time.sleep(1)


def _work(
    running: Installation, changes: Changes, killer: Killer, seconds: float, tell: Tell
) -> None:
    started = time.monotonic()
    told = 0
    while (passed := time.monotonic() - started) < seconds:
        for part in running.parts:
            part.restart_if_ended()
        changes.tick()
        if passed // 60 > told:
            told = int(passed // 60)
            tell(f"minute {told}: {dict(changes.done)}, {len(killer.kills)} kills")
        time.sleep(1)


def _come_to_rest(running: Installation, database: Database, tell: Tell) -> list[str]:
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


def _not_as_it_should_be(database: Database, corpus: Corpus) -> list[str]:
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


def _runs(
    running: Installation, kills: list[Kill]
) -> tuple[dict[str, int], dict[str, float | None]]:
    """Runs by job and state; and how soon each killed one was reported, None: not yet."""
    at = {kill.run_id: kill for kill in kills if kill.run_id is not None}
    with psycopg.connect(running.dagster_url, application_name="soak") as connection:
        runs = {f"{job} {status}": n for job, status, n in connection.execute(RUNS)}
        ended = connection.execute(REPORTED, [list(at)]).fetchall()
    return runs, {
        f"{at[run_id].what} {run_id}": None if end is None else round(end - at[run_id].at, 1)
        for run_id, status, end in ended
    }
