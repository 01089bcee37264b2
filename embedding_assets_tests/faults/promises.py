"""What must hold whatever goes wrong, and those who watch that it does."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from embedding_assets.engine import queue
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.upsert import upsert
from embedding_assets_tests.loopback_api import LoopbackAPI

CHUNKING = ChunkSettings(target=60, overlap=10, maximum=90)
PATIENCE = timedelta(seconds=60)

# A digest of what readers see of each recording: its texts, in order.
SEEN = """
    SELECT recording_id, sha256(string_agg(content_hash, '' ORDER BY chunk_index)) AS digest,
           array_agg(chunk_index ORDER BY chunk_index) AS indexes
    FROM transcript_chunks GROUP BY recording_id
"""
HOLDERS = "SELECT DISTINCT claimed_by FROM embedding_queue WHERE claimed_by IS NOT NULL"

# How far a process gets before something happens to it.
STAGES = ("started", "claimed", "asked", "stored", "published")
PROGRESS = """
    SELECT (SELECT max(started_at) FROM embedding_queue) AS claimed,
           (SELECT max(id) FROM chunk_embeddings) AS stored,
           (SELECT count(*) FROM embedding_attempts WHERE outcome = 'published') AS published
"""

# What errors must not tell: a piece of what was said.
QUOTED = """
    SELECT count(*) FROM embedding_attempts AS attempts, fathom_transcripts AS segments
    WHERE length(segments.text) > 20 AND strpos(attempts.error, left(segments.text, 20)) > 0
"""

Version = tuple[str, bytes]  # a recording, and a digest of its chunks


def look(database: Database, query: Any, parameters: Sequence[Any] = ()) -> list[Any]:
    """What a query gives, when the database is there again."""
    return database.retrying(lambda c: c.execute(query, parameters).fetchall())


def wait_until(is_so: Callable[[], object], patience: timedelta = PATIENCE) -> None:
    """Polls until it is so."""
    deadline = time.monotonic() + patience.total_seconds()
    while not is_so():
        assert time.monotonic() < deadline, f"not within {patience}"
        time.sleep(0.01)


class Reader(threading.Thread):
    """Polls what readers see, throughout: every version of every recording, and what is amiss."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: set[Version] = set()
        self.amiss: list[str] = []
        self.may_vanish: set[str] = set()
        """What the recorder deletes."""
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
        for row in look(database, SEEN):
            there.add(row.recording_id)
            self.seen.add((row.recording_id, row.digest))
            if row.indexes != list(range(len(row.indexes))):
                self.amiss.append(f"{row.recording_id} has gaps")
        gone = {recording_id for recording_id, _ in self.seen} - there - self.may_vanish
        self.amiss.extend(f"{recording_id} vanished" for recording_id in gone)

    def end(self) -> None:
        """Returns when the last look is over."""
        self._ended.set()
        self.join(timeout=60)
        assert not self.is_alive()


@contextmanager
def reading(url: str) -> Iterator[Reader]:
    """A reader that polls while the block goes on."""
    reader = Reader(url)
    reader.start()
    try:
        yield reader
    finally:
        reader.end()


class Corpus:
    """The recordings, and every version that their chunks may ever have."""

    def __init__(self, database: Database, seed: int | str) -> None:
        self.versions: set[Version] = set()
        self.ids: list[str] = []
        self.chunking = CHUNKING
        self._database = database
        self._random = random.Random(seed)

    def add(self, recordings: Iterator[Recording]) -> None:
        """Imports recordings."""
        for recording in recordings:
            upsert(self._database, recording)
            self._take_in(recording.recording_id)

    def find(self) -> None:
        """Takes in the recordings that are there already."""
        self.ids = []
        ids = "SELECT recording_id::text FROM fathom_calls ORDER BY 1"
        for (recording_id,) in look(self._database, ids):
            self._take_in(recording_id)

    def _take_in(self, recording_id: str) -> None:
        self.ids.append(recording_id)
        self.versions.add(self.version(recording_id))

    def edit(self, times: int) -> None:
        """Changes a tenth of the segments of a recording, so many times."""
        for _ in range(times):
            self._edit(self._random.choice(self.ids))

    def edit_each(self) -> None:
        """Changes a tenth of the segments of every recording."""
        for recording_id in self.ids:
            self._edit(recording_id)

    def _edit(self, recording_id: str) -> None:
        text, remainder = f"Edit {self._random.random()}. ", self._random.randrange(10)
        self._database.retrying(
            lambda c: c.execute(
                "UPDATE fathom_transcripts SET edited_text = %s || text"
                " WHERE recording_id = %s AND position %% 10 = %s",
                [text, recording_id, remainder],
            )
        )
        self.versions.add(self.version(recording_id))

    def version(self, recording_id: str) -> Version:
        """What the chunks of a recording should be now."""
        transcript = self._database.retrying(
            lambda c: read_transcript(c, recording_id, self.chunking), snapshot=True
        )
        assert transcript is not None
        texts = b"".join(chunk.content_hash for chunk in transcript.chunks)
        return recording_id, hashlib.sha256(texts).digest()

    def current(self) -> set[Version]:
        """What the chunks of all recordings should be now."""
        return {self.version(recording_id) for recording_id in self.ids}


class Payments:
    """What each process asked the API for, against what was stored when it started."""

    def __init__(self, database: Database, api: LoopbackAPI) -> None:
        self._database = database
        self._api = api
        self._last_vector: dict[str, int] = {}

    def starts(self, key: str) -> None:
        """Before a process starts whose API key this is."""
        ((last,),) = look(self._database, "SELECT coalesce(max(id), 0) FROM chunk_embeddings")
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
        (row,) = self._database.retrying(lambda c: c.execute(query, values).fetchall())
        return [name for name, is_so in row._asdict().items() if is_so]

    def made_twice(self) -> list[str]:
        """Texts that a process asked for twice, or that were stored before it started."""
        return self.of_stored_texts() + [
            text
            for texts in self._api.stats.asked.values()
            for text, times in texts.items()
            if times > 1
        ]

    def of_stored_texts(self) -> list[str]:
        """Texts that a process asked for although they were stored before it started.

        Vectors are only ever added, so an id tells which were there.
        """
        query = "SELECT encode(content_hash, 'hex') AS hash, id FROM chunk_embeddings"
        ids = {row.hash: row.id for row in look(self._database, query)}
        return [
            text
            for key, texts in self._api.stats.asked.items()
            for text in texts
            if ids.get(text, float("inf")) <= self._last_vector.get(key, 0)
        ]


def assert_whole(database: Database, corpus: Corpus, reader: Reader) -> None:
    """Nothing was lost, and nobody ever saw a part of a recording."""
    current = corpus.current()
    assert look(database, "SELECT status, count(*) FROM embedding_queue GROUP BY 1") == [
        ("completed", len(current))
    ]
    assert {(row.recording_id, row.digest) for row in look(database, SEEN)} == current
    without_vector = look(
        database,
        "SELECT 1 FROM transcript_chunks LEFT JOIN chunk_embeddings AS stored USING (content_hash)"
        " WHERE stored.id IS NULL LIMIT 1",
    )
    assert without_vector == []
    assert reader.amiss == []
    assert len(reader.seen) > len(current)  # it saw versions come and go
    assert reader.seen <= corpus.versions


def let_it_get_to(
    stage: str, database: Database, api: LoopbackAPI
) -> Callable[[Callable[[], bool]], None]:
    """Waits until a process that is started after this gets to the stage, or ends."""

    def progress() -> object:
        (row,) = look(database, PROGRESS)
        return {**row._asdict(), "asked": api.stats.requests, "started": 0}[stage]

    before = progress()

    def wait(is_running: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while stage != "started" and is_running() and progress() == before:
            assert time.monotonic() < deadline, f"never {stage}"

    return wait


def retry_all(database: Database) -> None:
    """Three crashes make a dead letter; here a person says each time: try again, and now."""
    with database.transaction() as connection:
        failed = connection.execute(
            "SELECT recording_id FROM embedding_queue WHERE status IN ('failed', 'dead_letter')"
        )
        queue.retry(connection, [row.recording_id for row in failed], force=True)


def time_passes(database: Database) -> None:
    """What failed is due again, as it is by itself some time later."""
    database.retrying(
        lambda c: c.execute(
            "UPDATE embedding_queue SET next_attempt_at = now()"
            " WHERE status IN ('failed', 'pending') AND next_attempt_at > now()"
        )
    )


def wait_for_the_leases(database: Database) -> None:
    """Returns when no run holds anything any more."""
    query = "SELECT 1 FROM embedding_queue WHERE lease_expires_at >= now()"
    deadline = time.monotonic() + 60
    while look(database, query):
        assert time.monotonic() < deadline
        time.sleep(0.05)
