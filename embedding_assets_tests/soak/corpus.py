"""The calls of the soak, every version that their chunks may ever have, and who watches readers."""

import hashlib
import random
import threading
from collections import defaultdict

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.samples.generate import generate
from embedding_assets.recorders.upsert import upsert
from embedding_assets_tests.calls import rows
from embedding_assets_tests.soak.installation import SETTINGS

CHUNKING = ChunkSettings(
    target=int(SETTINGS["CHUNK_TARGET_TOKENS"]),
    overlap=int(SETTINGS["CHUNK_OVERLAP_TOKENS"]),
    maximum=int(SETTINGS["CHUNK_MAX_TOKENS"]),
)
# A digest of what readers see of each recording: its texts, in order.
SEEN = """
    SELECT recording_id, sha256(string_agg(content_hash, '' ORDER BY chunk_index)) AS digest,
           array_agg(chunk_index ORDER BY chunk_index) AS indexes
    FROM transcript_chunks GROUP BY recording_id
"""
LOOK_SECONDS = 0.3
MOST_CALLS = 1_000_000

Version = tuple[str, bytes]  # a recording, and a digest of its chunks


class Corpus:
    """Calls that come, are edited, go, and come back; one thread changes them."""

    def __init__(self, database: Database, seed: int) -> None:
        self.versions: set[Version] = set()
        self.recordings_of: defaultdict[str, set[str]] = defaultdict(set)  # by a text's hash
        self.there: list[str] = []
        self.ever_gone: set[str] = set()
        self._database = database
        self._random = random.Random(seed)
        self._new = generate(MOST_CALLS, 0, seed)
        self._gone: list[Recording] = []
        self._recordings: dict[str, Recording] = {}

    def add(self) -> None:
        """Imports a call that was never there."""
        self._store(next(self._new))

    def edit(self) -> None:
        """Changes a tenth of the segments of a call."""
        recording_id = self._random.choice(self.there)
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE fathom_transcripts SET edited_text = %s || text"
                " WHERE recording_id = %s AND position %% 10 = %s",
                [f"Edit {self._random.random()}. ", recording_id, self._random.randrange(10)],
            )
        self._note(recording_id)

    def delete(self) -> None:
        """Deletes a call at its source."""
        recording_id = self._random.choice(self.there)
        self.ever_gone.add(recording_id)
        self.there.remove(recording_id)
        self._gone.append(self._recordings[recording_id])
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM fathom_calls WHERE recording_id = %s", [recording_id])

    def bring_back(self) -> None:
        """Imports a call again that was deleted, if there is one."""
        if self._gone:
            self._store(self._gone.pop(self._random.randrange(len(self._gone))))

    def current(self) -> set[Version]:
        """What the chunks of all recordings should be now."""
        return {self._version(recording_id) for recording_id in self.there}

    def _store(self, recording: Recording) -> None:
        upsert(self._database, recording)
        self._recordings[recording.recording_id] = recording
        self.there.append(recording.recording_id)
        self._note(recording.recording_id)

    def _note(self, recording_id: str) -> None:
        self.versions.add(self._version(recording_id))

    def _version(self, recording_id: str) -> Version:
        transcript = self._database.retrying(
            lambda c: read_transcript(c, recording_id, CHUNKING), snapshot=True
        )
        assert transcript is not None
        for chunk in transcript.chunks:
            self.recordings_of[chunk.content_hash.hex()].add(recording_id)
        texts = b"".join(chunk.content_hash for chunk in transcript.chunks)
        return recording_id, hashlib.sha256(texts).digest()


class Reader(threading.Thread):
    """Polls what readers see, throughout: every version of every recording, and what is amiss."""

    def __init__(self, url: str, corpus: Corpus) -> None:
        super().__init__(daemon=True)
        self.seen: set[Version] = set()
        self.looks = 0
        self.amiss: list[str] = []
        self._corpus = corpus
        self._url = url
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            with Database(self._url, application_name="soak reader") as database:
                while not self._ended.wait(LOOK_SECONDS):
                    self._look(database)
        except Exception as error:  # an error in a thread would go unseen
            self.amiss.append(repr(error))

    def end(self) -> None:
        """Returns when the last look is over, and every version that was seen is judged."""
        self._ended.set()
        self.join(timeout=60)
        assert not self.is_alive()
        for recording_id, _ in self.seen - self._corpus.versions:
            self.amiss.append(f"a part of {recording_id} was seen")

    def _look(self, database: Database) -> None:
        there = set()
        for row in rows(database, SEEN):
            there.add(row.recording_id)
            self.seen.add((row.recording_id, row.digest))
            if row.indexes != list(range(len(row.indexes))):
                self.amiss.append(f"{row.recording_id} has gaps")
        seen_once = {recording_id for recording_id, _ in self.seen}
        for recording_id in seen_once - there - self._corpus.ever_gone:
            self.amiss.append(f"{recording_id} vanished")
        self.looks += 1
