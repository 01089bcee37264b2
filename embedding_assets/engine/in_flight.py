"""The recordings that a run works on: which texts each waits for, and what each has cost."""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from embedding_assets.engine.embedders import Embedded, cost_usd
from embedding_assets.engine.errors import EmbeddingAssetsError, TransientError
from embedding_assets.engine.packing import Input
from embedding_assets.engine.publication import AttemptFigures
from embedding_assets.engine.queue import Claim
from embedding_assets.engine.transcripts import Transcript
from embedding_assets.engine.vectors import VectorRow


class Lane(StrEnum):
    """How carefully vectors are inserted. Lower case: Dagster's config takes members by name."""

    standard = "standard"
    small_batch = "small_batch"

    @property
    def insert_batch(self) -> int:
        """Rows that the first insert takes."""
        return 50 if self is Lane.standard else 5


class State(StrEnum):
    """Where a recording in flight stands."""

    WAITING = "waiting"  # for the vectors of some of its texts
    COMPLETE = "complete"  # every text has a stored vector: it can be published
    FAILED = "failed"  # and no request under way has a text of it
    ENDING = "ending"  # its attempt is being written down


@dataclass(slots=True, eq=False)
class Recording:
    """A recording in flight, and what its attempt has cost so far."""

    claim: Claim
    lane: Lane
    started: float = field(default_factory=time.monotonic)
    transcript: Transcript | None = None  # None: its call is gone
    waiting: set[bytes] = field(default_factory=set)  # hashes of texts without a stored vector
    failure: EmbeddingAssetsError | None = None
    is_ending: bool = False
    embedded: int = 0
    requests: int = 0
    refusals: int = 0
    tokens: int = 0
    insert_batches: list[int] = field(default_factory=list)  # the smallest of each of its inserts

    @property
    def state(self) -> State:
        """Where it stands; its attempt can end if it is complete or failed."""
        if self.is_ending:
            return State.ENDING
        if self.waiting:
            return State.WAITING
        return State.FAILED if self.failure else State.COMPLETE

    @property
    def has_spent(self) -> bool:
        """Whether it has cost anything yet."""
        return bool(self.requests or self.tokens)

    def figures(self, model: str, price: float | None, insert_batch: int) -> AttemptFigures:
        """What the attempt did and cost.

        Args:
            model: the name that vectors are stored under.
            price: US dollars for a million tokens; None where unknown.
            insert_batch: rows of an insert, for an attempt that inserted nothing.
        """
        chunks = len(self.transcript.chunks) if self.transcript else 0
        return AttemptFigures(
            lane=self.lane,
            model=model,
            chunks=chunks,
            embedded=self.embedded,
            reused=0 if self.failure or self.waiting else chunks - self.embedded,
            requests=self.requests,
            tokens=self.tokens,
            cost_usd=cost_usd(self.tokens, price),
            seconds=time.monotonic() - self.started,
            smallest_insert_batch=min(self.insert_batches, default=insert_batch),
            refusals=self.refusals,
        )


def abandoned() -> EmbeddingAssetsError:
    """What a call has cost at least that goes on after its run: one request."""
    error = TransientError("the run stopped before the model answered")
    error.requests = 1
    return error


class InFlight:
    """All recordings in flight. A text that several need is sent once; the first of them pays."""

    def __init__(self) -> None:
        self._recordings: dict[Recording, None] = {}  # in the order they were added
        self._needed_by: dict[bytes, list[Recording]] = {}

    def __len__(self) -> int:
        return len(self._recordings)

    def __iter__(self) -> Iterator[Recording]:
        return iter(list(self._recordings))

    def add(self, recording: Recording) -> None:
        """Takes a recording in, before anything is known of its texts."""
        self._recordings[recording] = None

    def remove(self, recording: Recording) -> None:
        """Forgets a recording whose attempt has ended."""
        del self._recordings[recording]

    def wait_for(self, recording: Recording, hashes: Iterable[bytes]) -> list[bytes]:
        """Lets the recording wait for texts; gives those that nobody waited for, to be sent."""
        new: list[bytes] = []
        for content_hash in hashes:
            recording.waiting.add(content_hash)
            needing = self._needed_by.setdefault(content_hash, [])
            needing.append(recording)
            if len(needing) == 1:
                new.append(content_hash)
        return new

    def needing(self, hashes: Iterable[bytes]) -> list[Recording]:
        """The recordings that wait for any of these texts, each once."""
        return list(dict.fromkeys(r for each in hashes for r in self._needed_by[each]))

    def payer(self, content_hash: bytes) -> Recording:
        """The recording that a text, and a request that begins with it, is charged to."""
        return self._needed_by[content_hash][0]

    def charge(self, inputs: list[Input], error: EmbeddingAssetsError) -> None:
        """Charges what a failed request has cost to the payer of its first text."""
        payer = self.payer(inputs[0].content_hash)
        payer.requests += error.requests
        payer.refusals += error.refusals
        payer.tokens += error.tokens

    def pay(self, rows: list[VectorRow], answer: Embedded) -> None:
        """Charges an answer's tokens text by text, and its requests to the first text's payer."""
        for row in rows:
            payer = self.payer(row.content_hash)
            payer.tokens += row.token_count
            payer.embedded += 1
        first = self.payer(rows[0].content_hash)
        first.requests += answer.requests
        first.refusals += answer.refusals

    def lane_of(self, content_hash: bytes) -> Lane:
        """The most careful lane of the recordings that wait for this text."""
        careful = any(r.lane is Lane.small_batch for r in self._needed_by[content_hash])
        return Lane.small_batch if careful else Lane.standard

    def inserted(self, rows: Iterable[VectorRow], smallest_batch: int) -> None:
        """Notes how small the inserts of these vectors had to be."""
        for recording in self.needing(row.content_hash for row in rows):
            recording.insert_batches.append(smallest_batch)

    def arrived(self, hashes: Iterable[bytes]) -> None:
        """These texts' vectors are stored: nobody waits for them any more."""
        for content_hash in hashes:
            for recording in self._needed_by.pop(content_hash):
                recording.waiting.discard(content_hash)

    def fail(self, hashes: Collection[bytes], error: EmbeddingAssetsError) -> list[Recording]:
        """Gives these texts up; gives the recordings that need one, which fail by this error."""
        failed = self.needing(hashes)
        for recording in failed:
            recording.failure = recording.failure or error
        self.arrived(hashes)
        return failed

    def abandon(self, recording: Recording, hashes: Iterable[bytes]) -> list[bytes]:
        """Lets a recording wait for these texts no more; gives those that nobody needs now."""
        unwanted: list[bytes] = []
        for content_hash in hashes:
            needing = self._needed_by[content_hash]
            needing.remove(recording)
            recording.waiting.discard(content_hash)
            if not needing:
                del self._needed_by[content_hash]
                unwanted.append(content_hash)
        return unwanted
