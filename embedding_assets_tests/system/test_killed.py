"""Processes killed anywhere: nothing is lost, or paid for twice, and nobody sees a part."""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from embedding_assets.embedded_postgres import EmbeddedPostgres
from embedding_assets.engine import queue
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.importers.upsert import upsert
from embedding_assets.samples.generate import generate
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.engine.conftest import rows
from embedding_assets_tests.loopback_api import LoopbackAPI, text_hash
from embedding_assets_tests.system.conftest import engine_environment, engine_process

KILLS = 100
RECORDINGS = 30
CHUNKING = ChunkSettings(target=60, overlap=10, maximum=90)


class Reader(threading.Thread):
    """Polls what readers see, throughout, and keeps every version of every recording."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.seen: set[tuple[str, tuple[str, ...]]] = set()
        self._url = url

    def run(self) -> None:
        with Database(self._url) as database:
            while not self.ended.is_set():
                for row in rows(
                    database,
                    "SELECT recording_id, array_agg(encode(content_hash, 'hex')"
                    " ORDER BY chunk_index) AS hashes, max(chunk_index) + 1 = count(*) AS whole"
                    " FROM transcript_chunks GROUP BY recording_id",
                ):
                    assert row.whole
                    self.seen.add((row.recording_id, tuple(row.hashes)))


def _version(database: Database, recording_id: str) -> tuple[str, tuple[str, ...]]:
    """What the chunks of a recording should be now."""
    transcript = database.retrying(
        lambda c: read_transcript(c, recording_id, CHUNKING), snapshot=True
    )
    assert transcript is not None
    return recording_id, tuple(chunk.content_hash.hex() for chunk in transcript.chunks)


def _published(database: Database) -> set[tuple[str, tuple[str, ...]]]:
    """What readers see of every recording."""
    query = (
        "SELECT recording_id, array_agg(encode(content_hash, 'hex') ORDER BY chunk_index)"
        " AS hashes FROM transcript_chunks GROUP BY recording_id"
    )
    return {(row.recording_id, tuple(row.hashes)) for row in rows(database, query)}


def _stored(database: Database) -> set[str]:
    query = "SELECT encode(content_hash, 'hex') AS content_hash FROM chunk_embeddings"
    return {row.content_hash for row in rows(database, query)}


def _edit(database: Database, random_: random.Random, recording_id: str) -> None:
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = %s"
            " WHERE recording_id = %s AND position = %s",
            [f"Edited to {random_.random()}.", recording_id, random_.randrange(50)],
        )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_kills_lose_nothing_and_pay_for_nothing_twice(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    random_ = random.Random(20)
    recordings = list(generate(RECORDINGS, 1, seed=2))
    versions: set[tuple[str, tuple[str, ...]]] = set()
    for recording in recordings:
        upsert(database, recording)
        versions.add(_version(database, recording.recording_id))
    environment = engine_environment(database_url, api, LEASE_SECONDS="1")
    reader = Reader(database_url)
    reader.start()
    again: Counter[str] = Counter()
    try:
        for kill in range(KILLS):
            stored, sent = _stored(database), Counter(api.stats.inputs)
            with engine_process(f"killed-{kill}", environment) as process:
                # From before the first statement to well into the work.
                time.sleep(random_.uniform(0.6, 2.2))
                process.kill()
                process.wait()
            again.update({t for t in api.stats.inputs - sent if t in stored})
            for _ in range(3):
                edited = random_.choice(recordings).recording_id
                _edit(database, random_, edited)
                versions.add(_version(database, edited))
            _make_due(database)
            _make_due(database)
        stored, sent = _stored(database), Counter(api.stats.inputs)
        deadline = time.monotonic() + 120
        while _unfinished(database) and time.monotonic() < deadline:
            with engine_process("last", environment) as process:
                process.wait(timeout=120)
            _make_due(database)
        again.update({t for t in api.stats.inputs - sent if t in stored})
    finally:
        reader.ended.set()
        reader.join(timeout=30)
    assert again == Counter()
    assert rows(database, "SELECT status, count(*) FROM embedding_queue GROUP BY 1") == [
        ("completed", RECORDINGS)
    ]
    published = _published(database)
    assert published == {_version(database, each.recording_id) for each in recordings}
    assert {text for _, hashes in published for text in hashes} <= _stored(database)
    assert len(reader.seen) >= RECORDINGS
    assert reader.seen <= versions


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_killed_dagster_runs_lose_nothing(
    server: EmbeddedPostgres,
    database: Database,
    database_url: str,
    api: LoopbackAPI,
    tmp_path: Path,
) -> None:
    random_ = random.Random(21)
    api.latency = 1.0
    for recording in generate(RECORDINGS, 1, seed=4):
        upsert(database, recording)
    storage = "killed_dagster_storage"
    server.ensure_database(storage)
    environment = engine_environment(
        database_url,
        api,
        LEASE_SECONDS="1",
        EMBEDDING_ASSETS_HOME=str(tmp_path / "home"),
        DAGSTER_PG_URL=server.url(storage).replace("postgresql:", "postgresql+psycopg2:", 1),
    )
    checkout = Checkout(tmp_path, **environment)
    checkout("init")
    again: Counter[str] = Counter()
    every = [each.recording_id for each in rows(database, "SELECT recording_id FROM fathom_calls")]
    for _ in range(10):
        for recording_id in every:
            _edit(database, random_, recording_id)
        stored, sent = _stored(database), Counter(api.stats.inputs)
        process = checkout.start("embedding-assets", "run")
        # Into the run, which takes some seconds to begin.
        _wait_for_work(api, process)
        time.sleep(random_.uniform(0.0, 1.6))
        with suppress(ProcessLookupError):  # some get to their end
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        again.update({text for text in api.stats.inputs - sent if text in stored})
        _make_due(database)
    time.sleep(1.1)  # the last lease
    stored, sent = _stored(database), Counter(api.stats.inputs)
    api.latency = 0.0
    checkout("run", "--json")
    again.update({text for text in api.stats.inputs - sent if text in stored})
    assert again == Counter()
    assert rows(database, "SELECT status, count(*) FROM embedding_queue GROUP BY 1") == [
        ("completed", RECORDINGS)
    ]
    assert {text for _, hashes in _published(database) for text in hashes} <= _stored(database)


def _wait_for_work(api: LoopbackAPI, process: subprocess.Popen[bytes]) -> None:
    before = api.stats.requests
    deadline = time.monotonic() + 60
    while api.stats.requests == before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _make_due(database: Database) -> None:
    """Three crashes make a dead letter; here a person says each time: try again, and now."""
    with database.transaction() as connection:
        failed = connection.execute(
            "SELECT recording_id FROM embedding_queue WHERE status IN ('failed', 'dead_letter')"
        )
        queue.retry(connection, [row.recording_id for row in failed], force=True)


def _unfinished(database: Database) -> Any:
    return rows(database, "SELECT 1 FROM embedding_queue WHERE status <> 'completed' LIMIT 1")


def test_the_api_and_the_database_name_a_text_alike() -> None:
    import hashlib  # noqa: PLC0415

    assert text_hash("ä") == hashlib.sha256("ä".encode()).hexdigest()
