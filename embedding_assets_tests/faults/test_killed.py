"""Processes killed anywhere: nothing is lost, or paid for twice, and nobody sees a part."""

import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine import queue
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database
from embedding_assets.engine.heartbeats import silent_runs
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.samples.generate import generate
from embedding_assets.recorders.upsert import upsert
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.system.conftest import engine_environment, engine_process

KILLS = 100
DAGSTER_KILLS = 10
RECORDINGS = 40
CHUNKING = ChunkSettings(target=60, overlap=10, maximum=90)
LEASE_SECONDS = 1

# How far a process gets before it is killed.
STAGES = ("started", "claimed", "asked", "stored", "published")
PROGRESS = """
    SELECT (SELECT max(started_at) FROM embedding_queue) AS claimed,
           (SELECT max(id) FROM chunk_embeddings) AS stored,
           (SELECT count(*) FROM embedding_attempts WHERE outcome = 'published') AS published
"""
# A digest of what readers see of each recording: its texts, in order.
SEEN = """
    SELECT recording_id, sha256(string_agg(content_hash, '' ORDER BY chunk_index)) AS digest,
           array_agg(chunk_index ORDER BY chunk_index) AS indexes
    FROM transcript_chunks GROUP BY recording_id
"""

HOLDERS = "SELECT DISTINCT claimed_by FROM embedding_queue WHERE claimed_by IS NOT NULL"
HELD = "SELECT count(*) FROM embedding_queue WHERE claimed_by IS NOT NULL"

Version = tuple[str, bytes]  # a recording, and a digest of its chunks


class Reader(threading.Thread):
    """Polls what readers see, throughout: every version of every recording, and what is amiss."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: set[Version] = set()
        self.amiss: list[str] = []
        self._url = url
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            with Database(self._url) as database:
                while not self._ended.wait(0.005):
                    self._look(database)
        except Exception as error:  # pytest fails no test for an error in a thread
            self.amiss.append(repr(error))

    def _look(self, database: Database) -> None:
        there = set()
        for row in rows(database, SEEN):
            there.add(row.recording_id)
            self.seen.add((row.recording_id, row.digest))
            if row.indexes != list(range(len(row.indexes))):
                self.amiss.append(f"{row.recording_id} has gaps")
        gone = {recording_id for recording_id, _ in self.seen} - there
        self.amiss.extend(f"{recording_id} vanished" for recording_id in gone)

    def end(self) -> None:
        """Returns when the last look is over."""
        self._ended.set()
        self.join(timeout=60)
        assert not self.is_alive()


@contextmanager
def _reading(url: str) -> Iterator[Reader]:
    reader = Reader(url)
    reader.start()
    try:
        yield reader
    finally:
        reader.end()


class Corpus:
    """The recordings, and every version that their chunks may ever have."""

    def __init__(self, database: Database, seed: int) -> None:
        self.versions: set[Version] = set()
        self._database = database
        self._random = random.Random(seed)
        self._ids: list[str] = []

    def add(self, recordings: Iterator[Recording]) -> None:
        """Imports recordings."""
        for recording in recordings:
            upsert(self._database, recording)
            self._ids.append(recording.recording_id)
            self.versions.add(self.version(recording.recording_id))

    def edit(self, times: int) -> None:
        """Changes a tenth of the segments of a recording, so many times."""
        for _ in range(times):
            recording_id = self._random.choice(self._ids)
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE fathom_transcripts SET edited_text = %s || text"
                    " WHERE recording_id = %s AND position %% 10 = %s",
                    [f"Edit {self._random.random()}. ", recording_id, self._random.randrange(10)],
                )
            self.versions.add(self.version(recording_id))

    def version(self, recording_id: str) -> Version:
        """What the chunks of a recording should be now."""
        transcript = self._database.retrying(
            lambda c: read_transcript(c, recording_id, CHUNKING), snapshot=True
        )
        assert transcript is not None
        texts = b"".join(chunk.content_hash for chunk in transcript.chunks)
        return recording_id, hashlib.sha256(texts).digest()

    def current(self) -> set[Version]:
        """What the chunks of all recordings should be now."""
        return {self.version(recording_id) for recording_id in self._ids}


class Payments:
    """What each process asked the API for, against what was stored when it started."""

    def __init__(self, database: Database, api: LoopbackAPI) -> None:
        self._database = database
        self._api = api
        self._last_vector: dict[str, int] = {}

    def starts(self, key: str) -> None:
        """Before a process starts whose API key this is."""
        ((last,),) = rows(self._database, "SELECT coalesce(max(id), 0) FROM chunk_embeddings")
        self._last_vector[key] = last

    def left_by(self, key: str) -> list[str]:
        """What the process with this key, and run id, was in the middle of when it ended."""
        query = """
            SELECT EXISTS (SELECT FROM embedding_queue WHERE claimed_by = %(run)s) AS claims,
                   EXISTS (SELECT FROM embedding_attempts WHERE run_id = %(run)s) AS published,
                   EXISTS (SELECT FROM chunk_embeddings AS stored
                           WHERE id > %(last)s AND NOT EXISTS (
                               SELECT FROM transcript_chunks AS chunks
                               WHERE chunks.content_hash = stored.content_hash)) AS vectors
        """
        values = {"run": key, "last": self._last_vector[key]}
        with self._database.transaction() as connection:
            (row,) = connection.execute(query, values)
        return [name for name, is_so in row._asdict().items() if is_so]

    def made_twice(self) -> list[str]:
        """Texts that a process asked for twice, or that were stored before it started.

        Vectors are only ever added, so an id tells which were there.
        """
        query = "SELECT encode(content_hash, 'hex') AS hash, id FROM chunk_embeddings"
        ids = {row.hash: row.id for row in rows(self._database, query)}
        return [
            text
            for key, texts in self._api.stats.asked.items()
            for text, times in texts.items()
            if times > 1 or ids.get(text, float("inf")) <= self._last_vector[key]
        ]


def _assert_whole(database: Database, corpus: Corpus, reader: Reader) -> None:
    """Nothing was lost, and nobody ever saw a part of a recording."""
    current = corpus.current()
    assert rows(database, "SELECT status, count(*) FROM embedding_queue GROUP BY 1") == [
        ("completed", len(current))
    ]
    assert {(row.recording_id, row.digest) for row in rows(database, SEEN)} == current
    without_vector = rows(
        database,
        "SELECT 1 FROM transcript_chunks LEFT JOIN chunk_embeddings AS stored USING (content_hash)"
        " WHERE stored.id IS NULL LIMIT 1",
    )
    assert without_vector == []
    assert reader.amiss == []
    assert len(reader.seen) > len(current)  # it saw versions come and go
    assert reader.seen <= corpus.versions


def _let_it_get_to(
    stage: str, database: Database, api: LoopbackAPI
) -> Callable[[Callable[[], bool]], None]:
    """Waits until a process that is started after this gets to the stage, or ends."""

    def progress() -> object:
        (row,) = rows(database, PROGRESS)
        return {**row._asdict(), "asked": api.stats.requests, "started": 0}[stage]

    before = progress()

    def wait(is_running: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while stage != "started" and is_running() and progress() == before:
            assert time.monotonic() < deadline, f"never {stage}"

    return wait


def _retry_all(database: Database) -> None:
    """Three crashes make a dead letter; here a person says each time: try again, and now."""
    with database.transaction() as connection:
        failed = connection.execute(
            "SELECT recording_id FROM embedding_queue WHERE status IN ('failed', 'dead_letter')"
        )
        queue.retry(connection, [row.recording_id for row in failed], force=True)


def _wait_for_the_leases(database: Database) -> None:
    query = "SELECT 1 FROM embedding_queue WHERE lease_expires_at >= now()"
    deadline = time.monotonic() + 60
    while rows(database, query):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_kills_lose_nothing_and_pay_for_nothing_twice(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    random_ = random.Random(20)
    corpus = Corpus(database, seed=3)
    corpus.add(generate(RECORDINGS, 1, seed=2))
    payments = Payments(database, api)
    environment = engine_environment(database_url, api.base_url, LEASE_SECONDS=str(LEASE_SECONDS))
    killed: list[str] = []
    left: Counter[str] = Counter()
    with _reading(database_url) as reader:
        for n in range(3 * KILLS):
            if len(killed) == KILLS:
                break
            run_id = f"run-{n}"
            stage = random_.choice(STAGES)
            # Most are told of the crash, as by the sensor; the others wait for the leases.
            heir = killed[-1] if killed and random_.random() < 0.8 else None
            if heir is None:
                _wait_for_the_leases(database)
            corpus.edit(4)
            payments.starts(run_id)
            wait = _let_it_get_to(stage, database, api)
            with engine_process(environment, run_id, take_over=heir) as process:
                wait(process.is_alive)
                corpus.edit(1)  # while it works
                time.sleep(random_.uniform(0, 0.1))
                process.kill()
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    killed.append(run_id)
                    left.update(payments.left_by(run_id))
            _retry_all(database)
        # The last one's claims, which nobody waits for here, and then one run to the end.
        Claims(database, "a person", timedelta(seconds=LEASE_SECONDS)).take_over(killed[-1])
        _retry_all(database)
        payments.starts("last")
        with engine_process(environment, "last") as process:
            process.join(timeout=90)
            assert process.exitcode == 0
    assert len(killed) == KILLS
    # They did not die before they had begun, nor after all was done.
    assert min(left["claims"], left["vectors"], left["published"]) >= KILLS // 10
    assert payments.made_twice() == []
    _assert_whole(database, corpus, reader)


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
            _wait_until(lambda before=before: api.stats.requests > before)
            process.kill()
            process.join()
        ((recordings,),) = rows(database, HELD)
        held.append(recordings)
        _wait_for_the_leases(database)
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
        _wait_for_the_leases(database)
    # In hands of many, of 64, 16 and 4, then three times alone; sooner alone, where the others of
    # its group were published before it killed them.
    assert 4 <= len(codes) - 1 <= 7
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    ended = "SELECT recording_id, attempts, error_kind FROM embedding_queue WHERE status = "
    assert rows(database, ended + "'dead_letter'") == [(poison, 3, "crashed")]
    assert len(rows(database, ended + "'completed'")) == RECORDINGS - 1
    counted = "SELECT DISTINCT recording_id FROM embedding_attempts WHERE outcome = 'failed'"
    assert rows(database, counted) == [(poison,)]


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    with _reading(database_url) as reader:
        for n in range(3 * DAGSTER_KILLS):
            if killed == DAGSTER_KILLS:
                break
            corpus.add(generate(5, 0, seed=100 + n))
            corpus.edit(4)
            checkout.environment["OPENAI_API_KEY"] = key = f"dagster-{n}"
            payments.starts(key)
            is_last = killed == DAGSTER_KILLS - 1
            stage = "claimed" if is_last else random_.choice(STAGES[1:])
            wait = _let_it_get_to(stage, database, api)
            process = checkout.start("embedding-assets", "run")
            try:
                wait(partial(_is_running, process))
                time.sleep(random_.uniform(0, 0.1))
            finally:
                with suppress(ProcessLookupError):  # it got to its end
                    os.killpg(process.pid, signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
            holders = [row.claimed_by for row in rows(database, HOLDERS)]
            _wait_for_the_leases(database)
            _retry_all(database)
        checkout.environment["OPENAI_API_KEY"] = "dagster-last"
        payments.starts("dagster-last")
        checkout("run")  # for some, the crash that it finds was the third
        checkout("retry", "--dead-letters", "--force", "--now")
    assert killed == DAGSTER_KILLS
    assert payments.made_twice() == []
    _assert_whole(database, corpus, reader)
    # The last one killed had said that it was alive; report_dead_runs would find it.
    (last,) = holders
    with psycopg.connect(server.url(storage)) as connection:
        query = "SELECT status FROM runs WHERE run_id = %s"
        assert connection.execute(query, [last]).fetchall() == [("STARTED",)]
    with database.transaction() as connection:
        assert silent_runs(connection, [last], timedelta(seconds=LEASE_SECONDS))[last]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None
