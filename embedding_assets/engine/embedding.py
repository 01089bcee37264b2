"""The one engine call: claimed recordings in, one outcome for each out, as each is published."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders import Embedded, Embedder
from embedding_assets.engine.errors import (
    ClaimLostError,
    ConfigurationError,
    EmbeddingAssetsError,
    ErrorKind,
    InvalidInputError,
    TransientError,
)
from embedding_assets.engine.packing import Input, Packer
from embedding_assets.engine.publication import (
    AttemptFigures,
    fail,
    give_back,
    publish,
    withdraw,
)
from embedding_assets.engine.queue import Claim, Claims
from embedding_assets.engine.transcripts import Transcript, read_transcript, require_sight
from embedding_assets.engine.vectors import (
    InsertBatch,
    VectorRow,
    register_model,
    store_vectors,
    stored_hashes,
    vector_rows,
)

LARGE_RECORDING = 500  # chunks: a call of several hours
MOST_AT_ONCE = 256  # recordings held in memory
UNANSWERED_REQUESTS = 3  # so many in a row, and the run stops asking: the API is down
REFUSED_RECORDINGS = 3  # so many before any text is accepted, and the configuration is at fault
POLL_SECONDS = 0.5
STOPPING_SECONDS = 5.0  # for requests under way when a run stops: they are paid for


class Lane(StrEnum):
    """How carefully vectors are inserted. Lower case: Dagster's config takes members by name."""

    standard = "standard"
    small_batch = "small_batch"

    @property
    def insert_batch(self) -> int:
        """Rows that the first insert takes."""
        return 50 if self is Lane.standard else 5


class Result(StrEnum):
    """How an attempt ended."""

    PUBLISHED = "published"
    FAILED = "failed"
    SOURCE_GONE = "source_gone"
    CLAIM_LOST = "claim_lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording in this run."""

    recording_id: str
    result: Result
    figures: AttemptFigures
    error_kind: ErrorKind | None = None
    error: str | None = None


@dataclass(slots=True, eq=False)
class _Work:
    """A recording in flight: what it still waits for, and what it has cost."""

    claim: Claim
    started: float
    lane: Lane
    transcript: Transcript | None = None
    waiting: set[bytes] = field(default_factory=set)  # hashes without a stored vector
    failure: EmbeddingAssetsError | None = None
    embedded: int = 0
    requests: int = 0
    tokens: int = 0
    batches: list[int] = field(default_factory=list)  # the smallest of each of its inserts

    @property
    def has_spent(self) -> bool:
        """Whether it has cost anything yet."""
        return bool(self.requests or self.tokens)


class EmbeddingRun:
    """Embeds claimed recordings, packing requests across them, several requests in flight.

    All of the database work happens in the caller's thread, on one connection; only the
    embedder's calls run in threads.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        chunking: ChunkSettings,
        claims: Claims,
        *,
        lane: Lane = Lane.standard,
        insert_batch: int | None = None,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._chunking = chunking
        self._claims = claims
        self._lane = lane
        self._batches = {each: InsertBatch(insert_batch or each.insert_batch) for each in Lane}
        self._packer = Packer(embedder.limits)
        self._works: set[_Work] = set()
        self._owners: dict[bytes, list[_Work]] = {}  # who waits for a text; the first one pays
        self._flying: dict[Future[Embedded], list[Input]] = {}
        self._more = True
        self._rest_must_wait = False
        self._unanswered = 0
        self._accepted = False  # whether the model took any text yet
        self._refused: dict[str, EmbeddingAssetsError] = {}  # recordings refused before that

    def embed(self, claimed: Iterable[Claim | None]) -> Iterator[Outcome]:
        """Processes recordings as they are claimed; each outcome comes the moment it is committed.

        Recordings that are not finished when the caller stops, or when nothing can succeed, are
        given back; what they cost is written down as attempts that were released. Uncounted are
        the tokens of answers that never arrived (lost, or later than STOPPING_SECONDS after the
        stop), what a killed process spent on recordings that it had not ended, and what could not
        be written because the database stayed away.

        Raises:
            ConfigurationError: nothing can succeed; no attempt was counted.
            TransientError: the database stayed away for longer than a step of work waits.
        """
        pool = ThreadPoolExecutor(self._embedder.limits.concurrency, "embed")
        reason: ConfigurationError | None = None
        try:
            self._database.retrying(require_sight, snapshot=True)
            self._database.retrying(lambda connection: register_model(connection, self._embedder))
            yield from self._embed(iter(claimed), pool)
        except ConfigurationError as error:
            reason = error
            raise
        finally:
            self._embedder.close()
            self._harvest()
            pool.shutdown(wait=False, cancel_futures=True)
            self._give_back(reason)

    def _embed(
        self, claimed: Iterator[Claim | None], pool: ThreadPoolExecutor
    ) -> Iterator[Outcome]:
        while self._more or self._flying or self._packer:
            yield from self._take_in(claimed)
            self._send(pool)
            if self._flying:
                done, _ = wait(self._flying, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    yield from self._receive(future, self._flying.pop(future))
            else:
                yield from self._conclude()
                if self._rest_must_wait:
                    time.sleep(POLL_SECONDS)
            self._claims.renew()
            if self._unanswered >= UNANSWERED_REQUESTS:
                # The recordings whose texts were not sent are given back, at no cost to them.
                self._more = False
                self._packer.clear()
        yield from self._conclude()

    def _take_in(self, claimed: Iterator[Claim | None]) -> Iterator[Outcome]:
        """Claims and reads recordings until enough waits to keep the requests full."""
        self._rest_must_wait = False
        while self._more and self._has_room() and not self._rest_must_wait:
            self._claims.renew()
            try:
                claim = next(claimed)
            except StopIteration:
                self._more = False
                return
            if claim is None:
                self._rest_must_wait = True
            else:
                yield from self._start(claim)

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Fills the free places in flight; a request that is not full waits while more may come."""
        if self._refuses_everything:
            return  # not before what is under way was answered too
        flush = not self._more or self._rest_must_wait or len(self._works) >= MOST_AT_ONCE
        while len(self._flying) < self._embedder.limits.concurrency:
            inputs = self._packer.take(flush=flush)
            if not inputs:
                return
            future = pool.submit(self._embedder.embed, [item.text for item in inputs])
            self._flying[future] = inputs

    def _has_room(self) -> bool:
        return len(self._works) < MOST_AT_ONCE and not self._packer.is_full

    def _start(self, claim: Claim) -> Iterator[Outcome]:
        """Reads and chunks the recording, and queues the texts that have no vector yet."""
        # What failed before is handled with care from the start.
        lane = Lane.small_batch if claim.attempts or claim.crashes else self._lane
        work = _Work(claim, time.monotonic(), lane)
        self._works.add(work)
        try:
            work.transcript = self._database.retrying(
                lambda c: read_transcript(c, claim.recording_id, self._chunking), snapshot=True
            )
            if work.transcript is None:
                yield self._end(work)
                return
            chunks = {chunk.content_hash: chunk for chunk in work.transcript.chunks}
            stored = self._database.retrying(
                lambda c: stored_hashes(c, self._embedder.model, chunks)
            )
        except (ConfigurationError, TransientError):
            raise
        except EmbeddingAssetsError as error:  # this recording cannot be read; others can
            work.failure = error
            yield self._end(work)
            return
        if len(chunks) > LARGE_RECORDING:
            work.lane = Lane.small_batch
        work.waiting = chunks.keys() - stored
        for content_hash in sorted(work.waiting, key=lambda h: chunks[h].index):
            owners = self._owners.setdefault(content_hash, [])
            owners.append(work)
            if len(owners) == 1:
                text = chunks[content_hash].text
                planned = self._embedder.planned_tokens(text)
                self._packer.add(Input(content_hash, text, planned))
        yield from self._finish([work])

    def _receive(self, future: Future[Embedded], inputs: list[Input]) -> Iterator[Outcome]:
        """Stores what came back, or decides by the error's kind; then ends what is complete."""
        try:
            answer = future.result()
        except EmbeddingAssetsError as error:
            self._charge(inputs, error)
            yield from self._decide(inputs, error)
        else:
            self._unanswered = 0
            self._accepted = True
            rows = vector_rows(inputs, answer)
            self._pay(rows, answer)
            yield from self._store(inputs, rows)
            yield from self._settle()

    def _decide(self, inputs: list[Input], error: EmbeddingAssetsError) -> Iterator[Outcome]:
        """What a failed call means for its texts."""
        if isinstance(error, ConfigurationError):
            raise error
        if isinstance(error, InvalidInputError) and len(inputs) > 1:
            # Halve, until the input that the model refuses stands alone.
            half = len(inputs) // 2
            self._packer.put_back(inputs[:half], inputs[half:])
            yield from self._fail(self._waiting_for(inputs))
            return
        if self._is_in_doubt(error):
            self._doubt(inputs[0], error)
        self._unanswered += isinstance(error, TransientError)
        yield from self._give_up(inputs, error)

    def _is_in_doubt(self, error: EmbeddingAssetsError | None) -> bool:
        """Whether it may be a refusal of everything: of no named text, and with none accepted."""
        is_vague = isinstance(error, InvalidInputError) and not error.names_input
        return is_vague and not self._accepted

    def _doubt(self, refused: Input, error: EmbeddingAssetsError) -> None:
        """Notes a refusal that may be the configuration's fault.

        A recording that was refused before is no evidence: its own text may well be at fault.
        """
        claim = self._owners[refused.content_hash][0].claim
        if not claim.was_refused:
            self._refused[claim.recording_id] = error
        # A cluster of bad texts must not keep the good ones behind it from being asked.
        self._packer.turn()

    @property
    def _refuses_everything(self) -> bool:
        return not self._accepted and len(self._refused) >= REFUSED_RECORDINGS

    def _charge(self, inputs: list[Input], error: EmbeddingAssetsError) -> None:
        """A failed call is on the account of the first recording that waits for its first text."""
        payer = self._owners[inputs[0].content_hash][0]
        payer.requests += error.requests
        payer.tokens += error.tokens

    def _pay(self, rows: list[VectorRow], answer: Embedded) -> None:
        """Each text is on the account of the first recording that waits for it."""
        for row in rows:
            payer = self._owners[row.content_hash][0]
            payer.tokens += row.token_count
            payer.embedded += 1
        self._owners[rows[0].content_hash][0].requests += answer.requests

    def _store(self, inputs: list[Input], rows: list[VectorRow]) -> Iterator[Outcome]:
        works = self._waiting_for(inputs)
        try:
            for lane, batch in self._batches.items():
                careful = [row for row in rows if self._lane_of(row.content_hash) is lane]
                self._insert(careful, batch)
        except (ConfigurationError, TransientError):
            raise  # no recording's fault; and with the database away, nothing can be written down
        except EmbeddingAssetsError as error:
            yield from self._give_up(inputs, error)
            return
        for row in rows:
            for work in self._owners.pop(row.content_hash):
                work.waiting.discard(row.content_hash)
        yield from self._finish(works)

    def _insert(self, rows: list[VectorRow], batch: InsertBatch) -> None:
        """Stores vectors; their recordings learn how small the batches had to be."""
        batch.smallest = batch.rows  # of these inserts, not of earlier ones
        try:
            store_vectors(self._database, self._embedder.model, rows, batch, self._claims.renew)
        finally:
            for work in {work for row in rows for work in self._owners[row.content_hash]}:
                work.batches.append(batch.smallest)

    def _lane_of(self, content_hash: bytes) -> Lane:
        """The most careful lane of the recordings that wait for this text."""
        careful = any(work.lane is Lane.small_batch for work in self._owners[content_hash])
        return Lane.small_batch if careful else Lane.standard

    def _give_up(self, inputs: list[Input], error: EmbeddingAssetsError) -> Iterator[Outcome]:
        """Fails every recording that needs one of these texts, once nothing of it is in flight."""
        works = self._waiting_for(inputs)
        for work in works:
            work.failure = work.failure or error
        for item in inputs:
            for work in self._owners.pop(item.content_hash):
                work.waiting.discard(item.content_hash)
        yield from self._fail(works)

    def _fail(self, works: Iterable[_Work]) -> Iterator[Outcome]:
        """Sends no more of those that failed, and ends them if nothing of them is in flight."""
        failed = [work for work in works if work.failure]
        for work in failed:
            self._drop_queued(work)
        yield from self._finish(failed)

    def _waiting_for(self, inputs: Iterable[Input]) -> list[_Work]:
        """The recordings that need one of these texts."""
        works = (work for item in inputs for work in self._owners[item.content_hash])
        return list(dict.fromkeys(works))

    def _drop_queued(self, work: _Work) -> None:
        """Forgets the texts of a failed recording that are not sent yet and nobody else needs."""
        unwanted: list[bytes] = []
        for content_hash in self._packer.queued(work.waiting):
            owners = self._owners[content_hash]
            owners.remove(work)
            work.waiting.discard(content_hash)
            if not owners:
                del self._owners[content_hash]
                unwanted.append(content_hash)
        self._packer.drop(unwanted)

    def _finish(self, works: Iterable[_Work]) -> Iterator[Outcome]:
        for work in works:
            in_doubt = self._is_in_doubt(work.failure)
            if not work.waiting and work in self._works and not in_doubt:
                yield self._end(work)

    def _conclude(self) -> Iterator[Outcome]:
        """Nothing is under way: what was in doubt is the texts' fault, or the configuration's."""
        if self._refuses_everything:
            *_, error = self._refused.values()
            raise ConfigurationError(
                f"{error}; so it did for {len(self._refused)} recordings, and it accepted none:"
                " check OPENAI_BASE_URL, EMBEDDING_MODEL and EMBEDDING_MAX_INPUT_TOKENS"
            )
        yield from self._settle()

    def _settle(self) -> Iterator[Outcome]:
        """Ends what was in doubt, now that a text was accepted, or that none is left to ask."""
        for work in [work for work in self._works if work.failure and not work.waiting]:
            yield self._end(work)

    def _end(self, work: _Work) -> Outcome:
        outcome = self._ended(work)
        self._works.remove(work)  # not before it is written down
        self._claims.end(work.claim)
        return outcome

    def _ended(self, work: _Work) -> Outcome:
        """Ends the attempt in one transaction."""
        figures = self._figures(work)
        claim = work.claim
        try:
            failure = work.failure or self._succeed(work, figures)
            if failure is None:
                result = Result.PUBLISHED if work.transcript else Result.SOURCE_GONE
                return Outcome(claim.recording_id, result, figures)
            kind, text = failure.kind, str(failure)
            self._database.retrying(
                lambda c: fail(
                    c, self._claims.run_id, claim, figures=figures, kind=kind, error=text
                )
            )
            return Outcome(claim.recording_id, Result.FAILED, figures, kind, text)
        except ClaimLostError as error:
            if work.has_spent:
                self._database.retrying(
                    lambda c: give_back(c, self._claims.run_id, [(claim, figures)])
                )
            return Outcome(claim.recording_id, Result.CLAIM_LOST, figures, None, str(error))

    def _succeed(self, work: _Work, figures: AttemptFigures) -> EmbeddingAssetsError | None:
        """Publishes the recording, or withdraws it; gives what made this one recording fail."""

        def succeed(connection: Connection) -> None:
            run_id = self._claims.run_id
            if work.transcript is None:
                withdraw(connection, run_id, work.claim, figures)
            else:
                publish(connection, run_id, work.claim, work.transcript, figures=figures)

        try:
            self._database.retrying(succeed)
        except (ClaimLostError, ConfigurationError, TransientError):
            raise
        except EmbeddingAssetsError as error:
            return error
        return None

    def _harvest(self) -> None:
        """Keeps what requests under way still bring when the run stops: it is paid for."""
        wait(self._flying, STOPPING_SECONDS)
        rows: list[VectorRow] = []
        for future, inputs in self._flying.items():
            error = future.exception() if future.done() else _abandoned()
            if isinstance(error, EmbeddingAssetsError):
                self._charge(inputs, error)
            elif error is None:
                answered = vector_rows(inputs, future.result())
                self._pay(answered, future.result())
                rows += answered
        self._flying.clear()
        with contextlib.suppress(EmbeddingAssetsError):  # then they are paid for again, one day
            batch = self._batches[Lane.small_batch]
            store_vectors(self._database, self._embedder.model, rows, batch, self._claims.renew)

    def _give_back(self, reason: ConfigurationError | None) -> None:
        """Releases what is unfinished, and writes down what it has cost.

        A configuration error is written down for one recording at least: health is read from there.
        """
        works = [work for work in self._works if work.has_spent]
        if reason is not None and not works:
            works = list(self._works)[:1]
        attempts = [(work.claim, self._figures(work)) for work in works]
        if attempts:
            self._database.retrying(lambda c: give_back(c, self._claims.run_id, attempts, reason))
        self._claims.release()

    def _figures(self, work: _Work) -> AttemptFigures:
        chunks = len(work.transcript.chunks) if work.transcript else 0
        price = self._embedder.price_per_million_tokens
        return AttemptFigures(
            lane=work.lane,
            model=self._embedder.model,
            chunks=chunks,
            embedded=work.embedded,
            reused=0 if work.failure or work.waiting else chunks - work.embedded,
            requests=work.requests,
            tokens=work.tokens,
            cost_usd=None if price is None else work.tokens * price / 1e6,
            seconds=time.monotonic() - work.started,
            smallest_insert_batch=min(work.batches, default=self._batches[work.lane].rows),
        )


def _abandoned() -> TransientError:
    """What a call has cost at least that goes on after its run: one request."""
    error = TransientError("the run stopped before the model answered")
    error.requests = 1
    return error
