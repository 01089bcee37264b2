"""Ends attempts beside the run that reads and embeds the next recordings."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import (
    ClaimLostError,
    ConfigurationError,
    EmbeddingAssetsError,
    LockedError,
    TakenForDeadError,
    TransientError,
)
from embedding_assets.engine.in_flight import Recording
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.publication import AttemptFigures, fail, give_back, publish, withdraw

# Postgres takes longer to write the words of a recording than a run to read and cut the next one.
AT_ONCE = 2
# How often a minute of waiting is spent on a row that a recorder's transaction has locked.
MOST_TRIES = 10


class _Ending(NamedTuple):
    recording: Recording
    figures: AttemptFigures
    outcome: Future[Outcome]
    tries: int


class Endings:
    """Attempts that are being ended, `AT_ONCE` at a time, each over a connection of its own.

    Postgres writes what was published while the run cuts the next transcripts. Every attempt still
    ends in one transaction.
    """

    def __init__(self, database: Database, run_id: str) -> None:
        self._run_id = run_id
        self._free: SimpleQueue[Database] = SimpleQueue()
        for _ in range(AT_ONCE):
            self._free.put(database.another())
        self._threads = ThreadPoolExecutor(AT_ONCE, "end")
        self._begun: deque[_Ending] = deque()
        self._is_stopped = False

    @property
    def next(self) -> Future[Outcome] | None:
        """What is done when the first of them has ended; None: nothing is being ended."""
        return self._begun[0].outcome if self._begun else None

    def begin(self, recording: Recording, figures: AttemptFigures) -> None:
        """Ends the attempt of a recording that waits for nothing."""
        recording.is_ending = True
        self._try(recording, figures, tries=1)

    def ended(self) -> Iterator[tuple[Recording, Outcome]]:
        """Takes the attempts that have ended, in the order in which their ends began.

        Raises:
            ConfigurationError: nothing can be published.
            TransientError: the database stayed away; it may have ended the attempt.
            LockedError: somebody keeps a row locked, or a table.
        """
        while self._begun and self._begun[0].outcome.done():
            recording, figures, outcome, tries = self._begun.popleft()
            may_try = tries < MOST_TRIES and not self._is_stopped
            if may_try and isinstance(outcome.exception(), LockedError):
                self._try(recording, figures, tries=tries + 1)  # behind the others
                continue
            recording.is_ending = False
            yield recording, outcome.result()

    def stop(self) -> None:
        """Waits for the attempts that are being ended; those behind them are not ended any more."""
        self._is_stopped = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        while self._begun and self._begun[-1].outcome.cancelled():
            self._begun.pop().recording.is_ending = False
        while not self._free.empty():
            self._free.get().close()

    def _try(self, recording: Recording, figures: AttemptFigures, *, tries: int) -> None:
        outcome = self._threads.submit(self._end, recording, figures)
        self._begun.append(_Ending(recording, figures, outcome, tries))

    def _end(self, recording: Recording, figures: AttemptFigures) -> Outcome:
        database = self._free.get()
        try:
            return _end(database, self._run_id, recording, figures)
        finally:
            self._free.put(database)


def _end(database: Database, run_id: str, recording: Recording, figures: AttemptFigures) -> Outcome:
    """Ends the attempt in one transaction."""
    claim = recording.claim
    try:
        failure = recording.failure or _succeed(database, run_id, recording, figures)
        if failure is None:
            transcript = recording.transcript
            if transcript is None:
                return Outcome(claim.recording_id, Result.SOURCE_GONE, figures)
            return Outcome(
                claim.recording_id,
                Result.PUBLISHED,
                figures,
                call=transcript.call,
                version=transcript.version,
            )
        kind, text = failure.kind, str(failure)
        database.retrying(lambda c: fail(c, run_id, claim, figures=figures, kind=kind, error=text))
        return Outcome(claim.recording_id, Result.FAILED, figures, kind, text)
    except (ClaimLostError, TakenForDeadError) as error:  # the run's next claim says the latter
        if recording.has_spent:
            database.retrying(lambda c: give_back(c, run_id, [(claim, figures)]))
        return Outcome(claim.recording_id, Result.CLAIM_LOST, figures, None, str(error))


def _succeed(
    database: Database, run_id: str, recording: Recording, figures: AttemptFigures
) -> EmbeddingAssetsError | None:
    """Publishes the recording, or withdraws it; gives what made this one recording fail."""

    def succeed(connection: Connection) -> None:
        if recording.transcript is None:
            withdraw(connection, run_id, recording.claim, figures)
        else:
            publish(connection, run_id, recording.claim, recording.transcript, figures=figures)

    try:
        database.retrying(succeed)
    except (ClaimLostError, ConfigurationError, TakenForDeadError, TransientError):
        raise
    except EmbeddingAssetsError as error:
        return error
    return None
