"""The batch lane: texts that may wait a day are embedded at half price, in files of requests.

A batch is written down before it is sent, and each step is committed before the next, so that a
process may be killed between any two: whoever comes next looks at what the provider has and goes
on from there. While a batch is open, no worker sends its texts, until its deadline has passed.
"""

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from embedding_assets.engine.batch_work import DISCOUNT
from embedding_assets.engine.budget import Spending
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders import cost_usd
from embedding_assets.engine.embedders.openai import OpenAIEmbedder
from embedding_assets.engine.embedders.openai_batches import (
    FINAL,
    BatchAPI,
    Line,
    NoBatchesError,
    ProviderBatch,
)
from embedding_assets.engine.errors import (
    AnswersGoneError,
    InvalidInputError,
    TakenForDeadError,
    TransientError,
)
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.engine.vectors import (
    InsertBatch,
    VectorRow,
    add_model,
    register_model,
    store_vectors,
    stored_hashes,
)

LONGEST = timedelta(hours=24)  # the provider's own limit
CANDIDATES = 5_000  # recordings looked at for one batch
ROWS = 500  # vectors held in memory while answers are read
ENQUEUED_TOO_MUCH = "token_limit_exceeded"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold; the provider's limits, with some room."""

    inputs: int = 50_000
    file_bytes: int = 190_000_000
    request_bytes: int = 400  # of a line, besides its text


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """How long things last."""

    deadline: timedelta = LONGEST + timedelta(hours=1)  # then workers send the texts themselves
    poll: timedelta = timedelta(seconds=5)  # and not before the schedule asks
    lease: timedelta = timedelta(minutes=5)  # a step of a killed process is taken over after it
    later: timedelta = timedelta(minutes=30)  # when too much is enqueued at the provider


class BatchLane:
    """Plans, sends and collects batches of one model; nothing waits in it."""

    def __init__(
        self,
        database: Database,
        embedder: OpenAIEmbedder,
        chunking: ChunkSettings,
        *,
        limits: BatchLimits | None = None,
        times: BatchTimes | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._api = BatchAPI(embedder)
        self._chunking = chunking
        self._limits = limits or BatchLimits()
        self._times = times or BatchTimes()
        self._spending = spending

    def plan(self) -> str | None:
        """Puts texts of recordings that are due into a new batch; gives what it holds.

        None: nothing is due that needs a vector.

        Raises:
            BudgetSpentError: the batch would pass the budget of the day.
            ConfigurationError: the server has no batch API, or search reads another model.
            TransientError: the server is busy or away.
        """
        self._require_api()
        self._database.retrying(lambda c: register_model(c, self._embedder))
        return self._plan(self._candidates(), let_wait=True)

    def plan_model(self) -> str | None:
        """Puts what is published and has no vector of this model into a new batch.

        The model need not be live. None: there is nothing left that is in no batch.

        Raises:
            As `plan`, but for another model being live.
        """
        self._require_api()
        self._database.retrying(lambda c: add_model(c, self._embedder))
        return self._plan(self._published(), let_wait=False)

    def _plan(
        self, candidates: Iterator[tuple[str, dict[bytes, str]]], *, let_wait: bool
    ) -> str | None:
        began_at = self._database.retrying(sql.database_time)
        texts: dict[bytes, str] = {}  # ids of recordings by hash
        waiting: list[str] = []
        tokens = size = 0
        for recording_id, new in candidates:
            more = sum(len(text.encode()) + self._limits.request_bytes for text in new.values())
            is_full = (
                len(texts) + len(new) > self._limits.inputs or size + more > self._limits.file_bytes
            )
            if texts and is_full:
                break
            waiting.append(recording_id)
            texts.update(dict.fromkeys(new, recording_id))
            tokens += sum(map(self._embedder.planned_tokens, new.values()))
            size += more
        if not texts:
            return None
        if self._spending is not None:
            self._spending.require(self._embedder.pace.counted(tokens))
        batch_id = uuid.uuid4()
        deadline = began_at + self._times.deadline

        def write_down(connection: Connection) -> None:
            model = self._embedder.model
            sql.plan_batch(
                connection, batch_id=batch_id, model=model, inputs=len(texts), tokens=tokens,
                began_at=began_at, deadline=deadline,
            )  # fmt: skip
            sql.plan_inputs(
                connection, batch_id=batch_id, model=model, hashes=list(texts),
                recording_ids=list(texts.values()),
            )  # fmt: skip
            if let_wait:
                sql.let_wait(connection, recording_ids=waiting, until=deadline)

        self._database.retrying(write_down)
        return f"{len(texts):,} texts of {len(set(waiting)):,} recordings planned for a batch"

    def advance(self) -> Iterator[str]:
        """Takes the next step of every batch that has one; tells what was done.

        Raises:
            ConfigurationError: the server has no batch API, or refuses the key.
        """
        for batch in self._database.retrying(lambda c: list(sql.open_batches(c))):
            if batch.model != self._embedder.model:
                continue
            taken = self._database.retrying(
                lambda c, id=batch.batch_id: sql.take_batch(  # type: ignore[misc]
                    c, batch_id=id, lease=self._times.lease
                )
            )
            if taken is None:
                continue
            try:
                yield f"batch {taken.batch_id}: {self._step(taken)}"
            except (AnswersGoneError, InvalidInputError) as error:
                self._end(taken, "gone", embedded=0, error=str(error))
                yield f"batch {taken.batch_id}: {error}; workers embed its texts"
            except TransientError as error:
                self._look_again(taken, taken.provider_status)
                yield f"batch {taken.batch_id}: {error}"
        self._delete_files()

    @property
    def open(self) -> int:
        """How many batches of this model have not ended."""
        batches = self._database.retrying(lambda c: list(sql.open_batches(c)))
        return sum(batch.model == self._embedder.model for batch in batches)

    # Before it is sent.

    def _require_api(self) -> None:
        """Raises ConfigurationError if the server has no batch API, and remembers it for ticks."""
        try:
            self._api.require()
        except NoBatchesError:
            self._remember(lacks=True)
            raise
        self._remember(lacks=False)

    def _remember(self, *, lacks: bool) -> None:
        self._database.retrying(
            lambda c: sql.batches_lacking(c, model=self._embedder.model, lacks=lacks)
        )

    def _candidates(self) -> Iterator[tuple[str, dict[bytes, str]]]:
        """Recordings that are due, and of each the texts that nobody embeds yet."""
        rows = self._database.retrying(lambda c: list(sql.batch_candidates(c, limit=CANDIDATES)))
        for row in rows:
            texts = self._texts(row.recording_id)
            stored = self._database.retrying(
                lambda c, texts=texts: stored_hashes(c, self._embedder.model, texts)  # type: ignore[misc]
            )
            elsewhere = self._in_open_batches(list(texts))
            new = {h: text for h, text in texts.items() if h not in stored and h not in elsewhere}
            if new or elsewhere:
                yield row.recording_id, new

    def _published(self) -> Iterator[tuple[str, dict[bytes, str]]]:
        """Published texts that this model has no vector of and no batch has, each with a call."""
        model, after = self._embedder.model, b""
        while rows := self._database.retrying(
            lambda c, after=after: list(  # type: ignore[misc]
                sql.texts_without_vector(c, model=model, after=after, limit=ROWS)
            )
        ):
            hashes = [bytes(row.content_hash) for row in rows]
            elsewhere = self._in_open_batches(hashes)
            for content_hash, row in zip(hashes, rows, strict=True):
                if content_hash not in elsewhere:
                    yield row.recording_id, {content_hash: row.chunk_text}
            after = hashes[-1]

    def _in_open_batches(self, hashes: list[bytes]) -> set[bytes]:
        found = self._database.retrying(
            lambda c: list(sql.in_open_batches(c, model=self._embedder.model, hashes=hashes))
        )
        return {bytes(row.content_hash) for row in found}

    def _texts(self, recording_id: str) -> dict[bytes, str]:
        transcript = self._database.retrying(
            lambda c: read_transcript(c, recording_id, self._chunking), snapshot=True
        )
        return {} if transcript is None else {c.content_hash: c.text for c in transcript.chunks}

    def _step(self, batch: Any) -> str:
        if batch.state == "planned":
            return self._send(batch)
        found = self._api.look(batch.provider_batch)
        if found.status not in FINAL:
            self._look_again(batch, found.status)
            return found.status
        if found.status == "failed":
            return self._failed(batch, found)
        return self._collect(batch, found)

    def _send(self, batch: Any) -> str:
        """Uploads the file and starts the batch, unless a killed process did so already."""
        file = batch.input_file or self._upload(batch)
        if file is None:
            self._end(batch, "empty", embedded=0)
            return "none of its texts is there any more"
        found = self._api.find(str(batch.batch_id)) or self._api.create(file, str(batch.batch_id))
        status, name = found.status, found.name
        self._database.retrying(
            lambda c: sql.batch_sent(c, batch_id=batch.batch_id, provider_batch=name, status=status)
        )
        return f"sent, {status}"

    def _upload(self, batch: Any) -> str | None:
        """The provider's name of the input file; None if no text is left to be embedded."""
        name = f"embedding-assets-{batch.batch_id}.jsonl"
        file = self._api.find_file(name)
        if file is None:
            with tempfile.TemporaryDirectory(prefix="embedding-assets-") as folder:
                path = Path(folder) / name
                if not self._write(batch, path):
                    return None
                file = self._api.send_file(path)
        is_ours = self._database.retrying(
            lambda c: sql.file_sent(c, batch_id=batch.batch_id, taken=batch.not_before, file=file)
        )
        if not is_ours:
            raise TakenForDeadError("this run stood still for too long: another sends the batch")
        return file

    def _write(self, batch: Any, path: Path) -> int:
        """Writes the requests; texts that nobody says any more are taken out of the batch."""
        wanted: dict[str, set[bytes]] = {}
        for row in self._inputs(batch):
            wanted.setdefault(row.recording_id, set()).add(bytes(row.content_hash))
        gone: list[bytes] = []
        written = 0
        with path.open("w", encoding="utf-8") as file:
            for recording_id, hashes in wanted.items():
                texts = self._texts(recording_id)
                for content_hash in sorted(hashes):
                    if content_hash in texts:
                        file.write(self._api.request(content_hash.hex(), texts[content_hash]))
                        written += 1
                    else:
                        gone.append(content_hash)
        if gone:
            self._database.retrying(
                lambda c: sql.drop_inputs(c, batch_id=batch.batch_id, hashes=gone)
            )
        return written

    # When it has ended there.

    def _collect(self, batch: Any, found: ProviderBatch) -> str:
        """Stores the answers, and ends the batch in one transaction with what it has cost."""
        expected = {bytes(row.content_hash) for row in self._inputs(batch)}
        rows: list[VectorRow] = []
        embedded = tokens = refused = 0
        insert = InsertBatch(Lane.standard.insert_batch)
        for line in self._lines(found):
            content_hash = _hash_of(line)
            tokens += line.tokens
            if content_hash not in expected:
                continue
            if line.vector is None:
                refused += 1
                continue
            embedded += 1
            rows.append(VectorRow(content_hash, line.vector, line.tokens))
            if len(rows) == ROWS:
                self._store(batch, rows, insert)
        self._store(batch, rows, insert)
        self._end(batch, found.status, embedded=embedded, tokens=tokens)
        left = f", {refused:,} were not answered" if refused else ""
        return f"{found.status}: {embedded:,} texts embedded{left}"

    def _lines(self, found: ProviderBatch) -> Iterator[Line]:
        for file in (found.output_file, found.error_file):
            if file is not None:
                yield from self._api.lines(file)

    def _store(self, batch: Any, rows: list[VectorRow], insert: InsertBatch) -> None:
        self._look_again(batch, batch.provider_status, self._times.lease)  # nobody else takes it
        store_vectors(self._database, batch.model, rows, insert)
        rows.clear()

    def _failed(self, batch: Any, found: ProviderBatch) -> str:
        """Nothing was charged: it is sent again later, or its recordings go to the workers."""
        if found.error_code == ENQUEUED_TOO_MUCH:
            if batch.input_file is not None:
                self._api.delete_file(batch.input_file)
            self._database.retrying(
                lambda c: sql.send_later(
                    c, batch_id=batch.batch_id, seconds=self._times.later.total_seconds(),
                    error=ENQUEUED_TOO_MUCH,
                )
            )  # fmt: skip
            return "the provider has too much enqueued; it is sent again later"
        self._end(batch, "failed", embedded=0, error=found.error_code or "failed")
        return f"failed: {found.error_code}; workers embed its texts"

    def _end(
        self, batch: Any, status: str, *, embedded: int, tokens: int = 0, error: str | None = None
    ) -> None:
        price, inputs = self._embedder.price_per_million_tokens, self._inputs(batch)
        cost = cost_usd(tokens, price)

        def end(connection: Connection) -> None:
            if tokens and inputs:
                sql.record_attempt(
                    connection,
                    attempt_id=uuid.uuid5(batch.batch_id, "collected"),
                    recording_id=inputs[0].recording_id,
                    run_id=f"batch {batch.batch_id}",
                    lane="batch",
                    model=batch.model,
                    outcome="released",
                    error_kind=None,
                    error=None,
                    chunks=0,
                    embedded=embedded,
                    reused=0,
                    requests=1,
                    tokens=tokens,
                    cost_usd=None if cost is None else cost * DISCOUNT,
                    seconds=0.0,
                    smallest_insert_batch=None,
                    refusals=0,
                )
            sql.drop_all_inputs(connection, batch_id=batch.batch_id)
            sql.end_batch(
                connection, batch_id=batch.batch_id, status=status, embedded=embedded, error=error
            )
            sql.stop_waiting(connection, deadline=batch.deadline)

        self._database.retrying(end)

    def _delete_files(self) -> None:
        """Deletes the files of ended batches at the provider; what fails is tried the next time."""
        for batch in self._database.retrying(lambda c: list(sql.ended_with_files(c))):
            try:
                if batch.provider_batch is not None:
                    found = self._api.look(batch.provider_batch)
                    for file in (found.output_file, found.error_file):
                        if file is not None:
                            self._api.delete_file(file)
                self._api.delete_file(batch.input_file)
            except AnswersGoneError:
                pass
            except TransientError:
                return
            self._database.retrying(
                lambda c, id=batch.batch_id: sql.files_deleted(c, batch_id=id)  # type: ignore[misc]
            )

    def _inputs(self, batch: Any) -> list[Any]:
        return self._database.retrying(lambda c: list(sql.batch_inputs(c, batch_id=batch.batch_id)))

    def _look_again(self, batch: Any, status: str | None, after: timedelta | None = None) -> None:
        seconds = (after or self._times.poll).total_seconds()
        self._database.retrying(
            lambda c: sql.look_again(c, batch_id=batch.batch_id, seconds=seconds, status=status)
        )


def _hash_of(line: Line) -> bytes:
    try:
        return bytes.fromhex(line.custom_id)
    except ValueError:
        return b""
