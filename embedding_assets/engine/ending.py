"""Ends attempts one after the other, beside the run that reads and embeds the next recordings."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import (
    ClaimLostError,
    ConfigurationError,
    EmbeddingAssetsError,
    TransientError,
)
from embedding_assets.engine.in_flight import Recording
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.publication import AttemptFigures, fail, give_back, publish, withdraw


class _Ending(NamedTuple):
    recording: Recording
    outcome: Future[Outcome]


class Endings:
    """Attempts that are being ended, in their order, by one thread with a connection of its own.

    Postgres writes what was published while the run cuts the next transcripts: the two use two
    processors. Every attempt still ends in one transaction.
    """

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._thread = ThreadPoolExecutor(1, "end")
        self._begun: deque[_Ending] = deque()

    @property
    def next(self) -> Future[Outcome] | None:
        """What is done when the next attempt has ended; None: nothing is being ended."""
        return self._begun[0].outcome if self._begun else None

    def begin(self, recording: Recording, figures: AttemptFigures) -> None:
        """Ends the attempt of a recording that waits for nothing, after those begun before."""
        recording.is_ending = True
        self._begun.append(_Ending(recording, self._thread.submit(self._end, recording, figures)))

    def ended(self) -> Iterator[tuple[Recording, Outcome]]:
        """Takes the attempts that have ended, in their order.

        Raises:
            ConfigurationError: nothing can be published.
            TransientError: the database stayed away; it may have ended the attempt.
        """
        while self._begun and self._begun[0].outcome.done():
            recording, outcome = self._begun.popleft()
            recording.is_ending = False
            yield recording, outcome.result()

    def stop(self) -> None:
        """Waits for the attempt that is being ended; those behind it are not ended any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        while self._begun and self._begun[-1].outcome.cancelled():
            self._begun.pop().recording.is_ending = False
        self._database.close()

    def _end(self, recording: Recording, figures: AttemptFigures) -> Outcome:
        """Ends the attempt in one transaction."""
        claim, run_id = recording.claim, self._run_id
        try:
            failure = recording.failure or self._succeed(recording, figures)
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
            self._database.retrying(
                lambda c: fail(c, run_id, claim, figures=figures, kind=kind, error=text)
            )
            return Outcome(claim.recording_id, Result.FAILED, figures, kind, text)
        except ClaimLostError as error:
            if recording.has_spent:
                self._database.retrying(lambda c: give_back(c, run_id, [(claim, figures)]))
            return Outcome(claim.recording_id, Result.CLAIM_LOST, figures, None, str(error))

    def _succeed(
        self, recording: Recording, figures: AttemptFigures
    ) -> EmbeddingAssetsError | None:
        """Publishes the recording, or withdraws it; gives what made this one recording fail."""

        def succeed(connection: Connection) -> None:
            if recording.transcript is None:
                withdraw(connection, self._run_id, recording.claim, figures)
            else:
                publish(
                    connection, self._run_id, recording.claim, recording.transcript, figures=figures
                )

        try:
            self._database.retrying(succeed)
        except (ClaimLostError, ConfigurationError, TransientError):
            raise
        except EmbeddingAssetsError as error:
            return error
        return None
