"""Processes killed anywhere: nothing is lost, or paid for twice, and nobody sees a part."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.heartbeats import silent_runs
from embedding_assets.engine.queue import Claims
from embedding_assets.recorders.samples.generate import generate
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import (
    HOLDERS,
    SEEN,
    STAGES,
    Corpus,
    Payments,
    assert_whole,
    let_it_get_to,
    reading,
    retry_all,
    wait_for_the_leases,
    wait_until,
)
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.system.conftest import engine_environment, engine_process

DAGSTER_KILLS = 10
RECORDINGS = 40
LEASE_SECONDS = 1

HELD = "SELECT count(*) FROM embedding_queue WHERE claimed_by IS NOT NULL"


@pytest.fixture
def watched(
    database: Database, database_url: str, api: LoopbackAPI
) -> tuple[Database, str, LoopbackAPI]:
    """An empty database, its URL, and the API."""
    return database, database_url, api


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.moments(some=100, all=550)
def test_a_hundred_kills_lose_nothing_and_pay_for_nothing_twice(
    watched: tuple[Database, str, LoopbackAPI], chance: random.Random, moments: int, row: BeginRow
) -> None:
    database, database_url, api = watched
    corpus = Corpus(database, seed=3)
    corpus.add(generate(RECORDINGS, 1, seed=2))
    payments = Payments(database, api)
    environment = engine_environment(database_url, api.base_url, LEASE_SECONDS=str(LEASE_SECONDS))
    line = row("engine", "SIGKILL")
    killed: list[str] = []
    left: Counter[str] = Counter()
    with reading(database_url) as reader:
        for n in range(3 * moments):
            if len(killed) == moments:
                break
            run_id = f"run-{n}"
            stage = chance.choice(STAGES)
            # Most are told of the crash, as by the sensor; the others wait for the leases.
            heir = killed[-1] if killed and chance.random() < 0.8 else None
            if heir is None:
                wait_for_the_leases(database)
            corpus.edit(4)
            payments.starts(run_id)
            wait = let_it_get_to(stage, database, api)
            with engine_process(environment, run_id, take_over=heir) as process:
                wait(process.is_alive)
                corpus.edit(1)  # while it works
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    killed.append(run_id)
                    found = payments.left_by(run_id)
                    left.update(found)
                    line.moment(f"{stage}: left {', '.join(found) or 'nothing'}")
            retry_all(database)
        # The last one's claims, which nobody waits for here, and then one run to the end.
        Claims(database, "a person", timedelta(seconds=LEASE_SECONDS)).take_over(killed[-1])
        retry_all(database)
        payments.starts("last")
        with engine_process(environment, "last") as process:
            process.join(timeout=90)
            assert process.exitcode == 0
    assert len(killed) == moments
    # They did not die before they had begun, nor after all was done.
    assert min(left["claims"], left["vectors"], left["published"]) >= moments // 10
    assert payments.made_twice() == []
    assert_whole(database, corpus, reader)


def test_processes_killed_with_many_recordings_in_hand_cost_none_an_attempt(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    corpus = Corpus(database, seed=6)
    corpus.add(generate(RECORDINGS, 0, seed=6))
    environment = engine_environment(database_url, api.base_url, LEASE_SECONDS=str(LEASE_SECONDS))
    api.latency = 2.0
    held = []
    for n in range(6):
        before = api.stats.requests
        with engine_process(environment, f"killed-{n}") as process:
            wait_until(lambda before=before: api.stats.requests > before)
            process.kill()
            process.join()
        ((recordings,),) = rows(database, HELD)
        held.append(recordings)
        wait_for_the_leases(database)
    # All, all of the once suspect, then sixteen at a time, the rest of these, then four.
    assert held == [RECORDINGS, RECORDINGS, 16, 16, RECORDINGS - 32, 4]
    assert rows(database, "SELECT DISTINCT attempts FROM embedding_queue") == [(0,)]
    api.latency = 0.0
    with engine_process(environment, "lives") as process:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert {(row.recording_id, row.digest) for row in rows(database, SEEN)} == corpus.current()
    assert rows(database, "SELECT DISTINCT status, crashes FROM embedding_queue") == [
        ("completed", 0)
    ]


def test_a_recording_that_kills_its_process_is_a_dead_letter_alone_after_a_few_starts(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    corpus = Corpus(database, seed=7)
    corpus.add(generate(RECORDINGS, 0, seed=7))
    deadly = "these words kill"
    poison, *_ = sorted(recording_id for recording_id, _ in corpus.current())[17:]
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET text = text || %s"
            " WHERE recording_id = %s AND position = 3",
            [deadly, poison],
        )
    environment = engine_environment(database_url, api.base_url, LEASE_SECONDS=str(LEASE_SECONDS))
    codes: list[int | None] = []
    while not codes or codes[-1] != 0:
        assert len(codes) < 10
        with engine_process(environment, f"run-{len(codes)}", deadly=deadly) as process:
            process.join(timeout=60)
        codes.append(process.exitcode)
        wait_for_the_leases(database)
    # In hands of many, of 64, 16 and 4, then three times alone; sooner alone, where the others of
    # its group were published before it killed them.
    assert 4 <= len(codes) - 1 <= 7
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    ended = "SELECT recording_id, attempts, error_kind FROM embedding_queue WHERE status = "
    assert rows(database, ended + "'dead_letter'") == [(poison, 3, "crashed")]
    assert len(rows(database, ended + "'completed'")) == RECORDINGS - 1
    counted = "SELECT DISTINCT recording_id FROM embedding_attempts WHERE outcome = 'failed'"
    assert rows(database, counted) == [(poison,)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_killed_dagster_runs_lose_nothing_and_the_last_has_fallen_silent(
    server: EmbeddedPostgres,
    database: Database,
    database_url: str,
    api: LoopbackAPI,
    tmp_path: Path,
) -> None:
    random_ = random.Random(21)
    corpus = Corpus(database, seed=5)
    payments = Payments(database, api)
    storage = "killed_dagster_storage"
    server.ensure_database(storage)
    checkout = Checkout(
        tmp_path,
        **engine_environment(database_url, api.base_url, LEASE_SECONDS=str(LEASE_SECONDS)),
        EMBEDDING_ASSETS_HOME=str(tmp_path / "home"),
        DAGSTER_PG_URL=server.url(storage).replace("postgresql:", "postgresql+psycopg2:", 1),
    )
    checkout("init")
    api.latency = 0.3  # longer than the moment that a kill may come late
    killed = 0
    holders: list[str] = []
    with reading(database_url) as reader:
        for n in range(3 * DAGSTER_KILLS):
            if killed == DAGSTER_KILLS:
                break
            corpus.add(generate(5, 0, seed=100 + n))
            corpus.edit(4)
            checkout.environment["OPENAI_API_KEY"] = key = f"dagster-{n}"
            payments.starts(key)
            is_last = killed == DAGSTER_KILLS - 1
            stage = "claimed" if is_last else random_.choice(STAGES[1:])
            wait = let_it_get_to(stage, database, api)
            process = checkout.start("embedding-assets", "run")
            try:
                wait(partial(_is_running, process))
                time.sleep(random_.uniform(0, 0.1))
            finally:
                with suppress(ProcessLookupError):  # it got to its end
                    os.killpg(process.pid, signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
            holders = [row.claimed_by for row in rows(database, HOLDERS)]
            wait_for_the_leases(database)
            retry_all(database)
        checkout.environment["OPENAI_API_KEY"] = "dagster-last"
        payments.starts("dagster-last")
        checkout("run")  # for some, the crash that it finds was the third
        checkout("retry", "--dead-letters", "--force", "--now")
    assert killed == DAGSTER_KILLS
    assert payments.made_twice() == []
    assert_whole(database, corpus, reader)
    # The last one killed had said that it was alive; report_dead_runs would find it.
    (last,) = holders
    with psycopg.connect(server.url(storage)) as connection:
        query = "SELECT status FROM runs WHERE run_id = %s"
        assert connection.execute(query, [last]).fetchall() == [("STARTED",)]
    with database.transaction() as connection:
        assert silent_runs(connection, [last], timedelta(seconds=LEASE_SECONDS))[last]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None
