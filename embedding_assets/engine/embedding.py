"""The one engine call: claimed recordings in, one outcome for each out, as each is committed.

A recording is claimed, read and chunked (`_start`), waits for the vectors of its texts, and its
attempt ends (`Endings`): published, withdrawn, failed, or lost to another run. A request is packed
of the texts of many recordings (`_send`), and its answer is stored (`_answered`) or its error
decided (`_failed`). Answers and errors only change the state of recordings; `_end_those_of` is the
one place that looks at the state and ends attempts.
"""

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from embedding_assets.engine.budget import Spending
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders import Embedded, Embedder
from embedding_assets.engine.ending import Endings
from embedding_assets.engine.errors import (
    BudgetSpentError,
    ConfigurationError,
    EmbeddingAssetsError,
    TakenForDeadError,
    TransientError,
)
from embedding_assets.engine.in_flight import InFlight, Lane, Recording, State, abandoned
from embedding_assets.engine.outcome import Outcome
from embedding_assets.engine.packing import Input, Packer, largest_request
from embedding_assets.engine.publication import AttemptFigures, give_back
from embedding_assets.engine.queue import Claim, Claims, batch_deadline
from embedding_assets.engine.transcripts import Transcript, read_transcript, require_sight
from embedding_assets.engine.vectors import (
    InsertBatch,
    VectorRow,
    register_model,
    store_vectors,
    stored_hashes,
    vector_rows,
)
from embedding_assets.engine.verdicts import ModelStanding, Verdict, verdict

LARGE_RECORDING = 500  # chunks: a call of several hours
MOST_AT_ONCE = 256  # recordings held in memory
POLL_SECONDS = 0.5
# A run gives its recordings back when the server lets it ask only after this time, from its start.
PATIENCE = timedelta(hours=1)
# How long a stopping run waits for the requests under way, which are paid for.
STOPPING_SECONDS = 5.0


class EmbeddingRun:
    """Embeds claimed recordings, packing requests across them, several requests in flight.

    The database's work happens in the caller's thread, but for the ends of attempts, which have
    threads and connections of their own; the embedder's calls run in threads.
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
        patience: timedelta = PATIENCE,
        spending: Spending | None = None,
    ) -> None:
        self.stopped: str | None = None
        """Why this run stopped before everything due was done; None: it did not."""
        self._spending = spending
        self._waits_for_batches = False
        self._over_budget: tuple[Recording, BudgetSpentError] | None = None
        self._patience = patience
        self._database = database
        self._embedder = embedder
        self._chunking = chunking
        self._claims = claims
        self._lane = lane
        self._batches = {each: InsertBatch(insert_batch or each.insert_batch) for each in Lane}
        self._store = partial(
            store_vectors,
            database,
            embedder.model,
            heartbeat=claims.renew,  # several statement timeouts can take longer than a lease
            guard=claims.require_alive,
        )
        self._packer = Packer(embedder.limits)
        self._in_flight = InFlight()
        self._endings = Endings(database, claims.run_id)
        self._requests: dict[Future[Embedded], list[Input]] = {}
        self._model = ModelStanding()
        self._may_claim = True
        self._must_finish_first = False  # the rest is claimed only by a run that holds nothing

    def embed(
        self, claimed: Iterable[Claim | None], *, waits_for_batches: bool = False
    ) -> Iterator[Outcome]:
        """Processes recordings as they are claimed; each outcome comes the moment it is committed.

        Recordings that are not finished when the caller stops, or when nothing can succeed, are
        given back; what they cost is written down as attempts that were released. Uncounted are
        the tokens of answers that never arrived (lost, or later than STOPPING_SECONDS after the
        stop), what a killed process spent on recordings that it had not ended, and what could not
        be written because the database stayed away.

        With `waits_for_batches`, recordings with texts in a batch are given back until it ends.

        Raises:
            ConfigurationError: nothing can succeed; no attempt was counted.
            TransientError: the database stayed away for longer than a step of work waits.
            TakenForDeadError: others go on; no more was written than what attempts have cost.
        """
        self._waits_for_batches = waits_for_batches
        pool = ThreadPoolExecutor(self._embedder.limits.concurrency, "embed")
        self._ends_at = time.monotonic() + self._patience.total_seconds()
        reason: ConfigurationError | None = None
        try:
            self._database.retrying(require_sight, snapshot=True)
            self._database.retrying(lambda connection: register_model(connection, self._embedder))
            yield from self._embed(iter(claimed), pool)
        except ConfigurationError as error:
            reason = error
            yield from self._all_ended()
            raise
        except TransientError:
            self._database.retries_seconds = 0  # what gives back has waited long enough
            raise
        finally:
            self._embedder.close()
            self._store_what_arrives()
            pool.shutdown(wait=False, cancel_futures=True)
            self._endings.stop()
            with contextlib.suppress(EmbeddingAssetsError):  # that one is given back, too
                collections.deque(self._ended(), maxlen=0)
            self._give_back(reason)

    def _embed(
        self, claimed: Iterator[Claim | None], pool: ThreadPoolExecutor
    ) -> Iterator[Outcome]:
        while self._may_claim or self._requests or self._packer:
            self._take_in(claimed)
            self._send(pool)
            if not self._requests:
                self._end_all()
            self._receive_next()
            yield from self._ended()
            if self._must_finish_first and not self._requests:
                yield from self._all_ended()
                time.sleep(POLL_SECONDS)
            self._claims.renew()
            if self._must_pause():
                break  # all that is unfinished is given back
            if self._model.is_down:
                # The recordings whose texts were not sent are given back, at no cost to them.
                self._may_claim = False
                self._packer.clear()
        else:
            self._end_all()
        yield from self._all_ended()

    def _must_pause(self) -> bool:
        """Whether the server lets nothing leave before this run has to end."""
        pace = self._embedder.pace
        if pace is None or not self._requests:
            return False
        delay = pace.delay
        if delay <= 0 or time.monotonic() + delay <= self._ends_at:
            return False
        until = datetime.now(UTC) + timedelta(seconds=delay)
        self.stopped = (
            f"the embedding server lets nothing more be sent before {until:%Y-%m-%d %H:%M} UTC:"
            " what is unfinished was given back, and a later run goes on with it"
        )
        return True

    # A recording comes in.

    def _take_in(self, claimed: Iterator[Claim | None]) -> None:
        """Claims and reads recordings until enough waits to keep the requests full."""
        self._must_finish_first = False
        while self._may_claim and self._has_room() and not self._must_finish_first:
            self._claims.renew()
            try:
                claim = next(claimed)
            except StopIteration:
                self._may_claim = False
                return
            if claim is None:
                self._must_finish_first = True
                continue
            recording = self._start(claim)
            if self._over_budget is not None:
                self._may_claim = False
            elif recording is not None:
                self._end_those_of([recording])

    def _has_room(self) -> bool:
        return len(self._in_flight) < MOST_AT_ONCE and not self._packer.is_full

    def _start(self, claim: Claim) -> Recording | None:
        """Reads and chunks the recording, and queues the texts that have no vector yet.

        Gives None for a recording that is not worked on now: it does not fit into the budget of the
        day, or waits for a batch.
        """
        # What failed before is handled with care from the start.
        lane = Lane.small_batch if claim.attempts or claim.crashes else self._lane
        recording = Recording(claim, lane)
        self._in_flight.add(recording)
        try:
            known = self._database.retrying(partial(self._read, claim), snapshot=True)
        except (ConfigurationError, TransientError):
            raise
        except EmbeddingAssetsError as error:  # this recording cannot be read; others can
            recording.failure = error
            return recording
        recording.transcript = known.transcript
        if known.transcript is not None and len(known.transcript.chunks) > LARGE_RECORDING:
            recording.lane = Lane.small_batch
        if known.batch_deadline is not None:
            self._in_flight.remove(recording)
            self._claims.wait_for_batch(claim, known.batch_deadline)
            return None
        texts = known.missing
        planned = {each: self._embedder.planned_tokens(text) for each, text in texts.items()}
        try:
            self._require_budget(sum(planned.values()))
        except BudgetSpentError as error:
            self._in_flight.remove(recording)
            self._over_budget = recording, error
            return None
        for content_hash in self._in_flight.wait_for(recording, texts):
            self._packer.add(Input(content_hash, texts[content_hash], planned[content_hash]))
        return recording

    def _read(self, claim: Claim, connection: Connection) -> "_Known":
        """The transcript in chunks, and what is missing of it, as of one moment."""
        transcript = read_transcript(connection, claim.recording_id, self._chunking)
        if transcript is None:
            return _Known(None)
        model = self._embedder.model
        texts = {chunk.content_hash: chunk.text for chunk in transcript.chunks}
        for stored in stored_hashes(connection, model, texts):
            del texts[stored]
        waits = self._waits_for_batches
        deadline = batch_deadline(connection, model, list(texts)) if waits else None
        return _Known(transcript, texts, deadline)

    def _require_budget(self, planned: int) -> None:
        """Holds that a recording of so many planned tokens fits into the budget of the day.

        Raises:
            BudgetSpentError: not beside what is in flight and not written down yet.
        """
        pace = self._embedder.pace
        if self._spending is None or not planned:
            return
        sent = sum(item.planned_tokens for inputs in self._requests.values() for item in inputs)
        planned += self._packer.tokens + sent
        spent = sum(recording.tokens for recording in self._in_flight)
        self._spending.require(spent + (planned if pace is None else pace.counted(planned)))

    # A request goes out, and comes back.

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Fills the free places in flight; a request that is not full waits while more may come."""
        if self._model.refuses_everything:
            return  # not before what is under way was answered too
        flush = (
            not self._may_claim or self._must_finish_first or len(self._in_flight) >= MOST_AT_ONCE
        )
        while len(self._requests) < self._embedder.limits.concurrency:
            self._packer.max_tokens = largest_request(self._embedder)
            inputs = self._packer.take(flush=flush)
            if not inputs:
                return
            future = pool.submit(self._embedder.embed, [item.text for item in inputs])
            self._requests[future] = inputs

    def _receive_next(self) -> None:
        """Waits for the next answer; where there is no room, also for the next attempt to end."""
        awaited: list[Future[Any]] = list(self._requests)
        ending = self._endings.next
        if ending is not None and not self._has_room():
            awaited.append(ending)
        if not awaited:
            return
        done, _ = wait(awaited, POLL_SECONDS, FIRST_COMPLETED)
        for future in done - {ending}:
            self._receive(future)
            self._end_those_of(self._in_flight)

    def _receive(self, future: Future[Embedded]) -> None:
        inputs = self._requests.pop(future)
        try:
            answer = future.result()
        except EmbeddingAssetsError as error:
            self._failed(inputs, error)
        else:
            self._answered(inputs, answer)

    def _answered(self, inputs: list[Input], answer: Embedded) -> None:
        """Stores the vectors; the recordings that waited for them wait no more."""
        self._model.accepted()
        rows = vector_rows(inputs, answer)
        self._in_flight.pay(rows, answer)
        try:
            for lane, batch in self._batches.items():
                of_lane = [r for r in rows if self._in_flight.lane_of(r.content_hash) is lane]
                self._insert(of_lane, batch)
        except (ConfigurationError, TransientError, TakenForDeadError):
            raise  # no recording's fault; and with the database away, nothing can be written down
        except EmbeddingAssetsError as error:
            self._fail(inputs, error)
        else:
            self._in_flight.arrived(row.content_hash for row in rows)

    def _failed(self, inputs: list[Input], error: EmbeddingAssetsError) -> None:
        """Charges what the request cost, and does with its texts what the error means."""
        self._in_flight.charge(inputs, error)
        match verdict(error, len(inputs)):
            case Verdict.STOP_RUN:
                raise error
            case Verdict.BISECT:
                half = len(inputs) // 2
                self._packer.put_back(inputs[:half], inputs[half:])
                hashes = [item.content_hash for item in inputs]
                self._drop_queued(self._in_flight.needing(hashes))
            case Verdict.SPLIT:
                self._packer.max_tokens = largest_request(self._embedder)
                self._packer.unpack(inputs)
            case Verdict.FAIL:
                if self._model.is_in_doubt(error):
                    # A cluster of bad texts must not keep the good ones behind it from being asked.
                    self._packer.turn()
                self._model.failed(error, self._in_flight.payer(inputs[0].content_hash).claim)
                self._fail(inputs, error)

    def _insert(self, rows: list[VectorRow], batch: InsertBatch) -> None:
        """Stores vectors; their recordings learn how small the batches had to be."""
        batch.smallest = batch.rows  # of these inserts, not of earlier ones
        try:
            self._store(rows, batch)
        finally:
            self._in_flight.inserted(rows, batch.smallest)

    def _fail(self, inputs: list[Input], error: EmbeddingAssetsError) -> None:
        """Fails every recording that needs one of these texts, and sends no more of it."""
        self._drop_queued(self._in_flight.fail([item.content_hash for item in inputs], error))

    def _drop_queued(self, recordings: Iterable[Recording]) -> None:
        """Forgets the texts of failed recordings that are not sent yet and nobody else needs."""
        for recording in recordings:
            if recording.failure:
                queued = self._packer.queued(recording.waiting)
                self._packer.drop(self._in_flight.abandon(recording, queued))

    # An attempt ends.

    def _end_those_of(self, recordings: Iterable[Recording], *, in_doubt: bool = False) -> None:
        """Ends the attempts that wait for nothing; those in doubt only when told to."""
        for recording in recordings:
            if recording.state in {State.WAITING, State.ENDING}:
                continue
            if in_doubt or not self._model.is_in_doubt(recording.failure):
                self._endings.begin(recording, self._figures(recording))

    def _end_all(self) -> None:
        """No request is under way: what was in doubt is the texts' fault, or the configuration's.

        Raises:
            ConfigurationError: the model refuses everything.
        """
        if self._model.refuses_everything:
            raise self._model.configuration_error()
        self._end_those_of(self._in_flight, in_doubt=True)

    def _ended(self) -> Iterator[Outcome]:
        """The outcomes of the attempts that have ended by now."""
        for recording, outcome in self._endings.ended():
            self._in_flight.remove(recording)  # not before it is written down
            self._claims.end(recording.claim)
            yield outcome

    def _all_ended(self) -> Iterator[Outcome]:
        """As `_ended`, and waits for all whose end has begun."""
        while (ending := self._endings.next) is not None:
            wait([ending], POLL_SECONDS)
            self._claims.renew()
            yield from self._ended()

    # The run stops.

    def _store_what_arrives(self) -> None:
        """Keeps what requests under way still bring when the run stops: it is paid for."""
        wait(self._requests, STOPPING_SECONDS)
        rows: list[VectorRow] = []
        for future, inputs in self._requests.items():
            error = future.exception() if future.done() else abandoned()
            if isinstance(error, EmbeddingAssetsError):
                self._in_flight.charge(inputs, error)
            elif error is None:
                answered = vector_rows(inputs, future.result())
                self._in_flight.pay(answered, future.result())
                rows += answered
        self._requests.clear()
        with contextlib.suppress(EmbeddingAssetsError):  # then they are paid for again, one day
            self._store(rows, self._batches[Lane.small_batch])

    def _give_back(self, reason: ConfigurationError | None) -> None:
        """Releases what is unfinished, and writes down what it has cost.

        A configuration error is written down for one recording at least, and a spent budget for the
        first recording that did not fit into it: health is read from there.
        """
        spent = [recording for recording in self._in_flight if recording.has_spent]
        if reason is not None and not spent:
            spent = list(self._in_flight)[:1]
        attempts = [(recording.claim, self._figures(recording)) for recording in spent]
        if attempts:
            self._database.retrying(
                lambda c: give_back(c, self._claims.run_id, attempts, reason), any_schema=True
            )
        if self._over_budget is not None:
            recording, error = self._over_budget
            self.stopped = str(error)
            left = [(recording.claim, self._figures(recording))]
            self._database.retrying(lambda c: give_back(c, self._claims.run_id, left, error))
        self._claims.release()

    def _figures(self, recording: Recording) -> AttemptFigures:
        return recording.figures(
            self._embedder.model,
            self._embedder.price_per_million_tokens,
            self._batches[recording.lane].rows,
        )


class _Known(NamedTuple):
    """What the database knew of a recording when it was claimed."""

    transcript: Transcript | None  # None: its call is gone
    missing: Mapping[bytes, str] = {}  # the texts without a vector by their hashes, in order
    batch_deadline: datetime | None = None  # until when a batch is waited for that has one of them
