"""The ends of an attempt, each one short transaction: published, failed, withdrawn, given back."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from embedding_assets.engine.database import Connection, sql
from embedding_assets.engine.errors import (
    ClaimLostError,
    ConfigurationError,
    EmbeddingAssetsError,
    ErrorKind,
)
from embedding_assets.engine.heartbeats import require_alive
from embedding_assets.engine.model import Chunk
from embedding_assets.engine.queue import MAX_ATTEMPTS, Claim
from embedding_assets.engine.transcripts import Transcript, current_version, is_certainly_gone
from embedding_assets.engine.vectors import hold_live, hold_vectors

FIRST_WITH_TRANSACTION_TIMEOUT = 170000
# A publication takes a millisecond a chunk where the database has nothing else to do.
PUBLISHING_SECONDS = 20
PUBLISHED_IN_A_SECOND = 50  # chunks


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """What an attempt did and cost, by the names of `embedding_attempts`."""

    lane: str
    model: str
    chunks: int
    embedded: int
    reused: int
    requests: int
    tokens: int
    cost_usd: float | None
    seconds: float
    smallest_insert_batch: int
    refusals: int = 0  # of the requests, those that came too soon or were too much


def publish(
    connection: Connection,
    run_id: str,
    claim: Claim,
    transcript: Transcript,
    *,
    figures: AttemptFigures,
) -> None:
    """Puts the new chunks in place of the old ones and ends the claim.

    If the transcript changed while it was worked on, the recording is due again.

    Raises:
        ClaimLostError: another run holds the recording; nothing is written.
        EmbeddingAssetsError: a vector was swept meanwhile; the next attempt embeds it again.
    """
    if not _hold(connection, run_id, claim):
        return
    hold_live(connection, figures.model)
    hashes = {chunk.content_hash for chunk in transcript.chunks}
    with _pipeline(connection, len(hashes)):
        sql.withdraw_chunks(connection, recording_id=claim.recording_id)
        insert_chunks(connection, claim.recording_id, transcript)
        version = current_version(connection, claim.recording_id)
        sql.complete(
            connection,
            recording_id=claim.recording_id,
            changed=version != transcript.version,
            version=transcript.version,
            chunks=len(transcript.chunks),
            tokens=sum(chunk.token_count for chunk in transcript.chunks),
        )
        _record(connection, run_id, claim, figures, outcome="published")
        held = hold_vectors(connection, figures.model, hashes)
    if hashes - held:
        raise EmbeddingAssetsError("a vector was swept while its recording was being embedded")


def fail(
    connection: Connection,
    run_id: str,
    claim: Claim,
    *,
    figures: AttemptFigures,
    kind: ErrorKind,
    error: str,
) -> None:
    """Ends the claim with a failure; readers keep what was published before."""
    if not _hold(connection, run_id, claim):
        return
    sql.fail(
        connection,
        recording_id=claim.recording_id,
        max_attempts=MAX_ATTEMPTS,
        error_kind=kind,
        error=error,
    )
    _record(connection, run_id, claim, figures, outcome="failed", kind=kind, error=error)


def withdraw(connection: Connection, run_id: str, claim: Claim, figures: AttemptFigures) -> None:
    """Takes away the chunks and the queue row of a call that was deleted.

    Raises:
        ConfigurationError: the call may only be hidden from this role.
    """
    if not _hold(connection, run_id, claim):
        return
    if current_version(connection, claim.recording_id) is not None:
        raise EmbeddingAssetsError("the call came back while it was being withdrawn")
    if not is_certainly_gone(connection, claim.recording_id):
        raise ConfigurationError(
            f"row-level security on fathom_calls hides recording {claim.recording_id} from the role"
            " of DATABASE_URL, or may hide it: add a policy that lets it read all, and run"
            " deploy/roles.sql as the tables' owner"
        )
    sql.withdraw_chunks(connection, recording_id=claim.recording_id)
    sql.forget(connection, recording_id=claim.recording_id)
    _record(connection, run_id, claim, figures, outcome="source_gone")


def give_back(
    connection: Connection,
    run_id: str,
    attempts: Iterable[tuple[Claim, AttemptFigures]],
    reason: EmbeddingAssetsError | None = None,
) -> None:
    """Records what attempts cost that were released; the queue is not changed.

    That needs no claim: the cost is real, whichever run holds the recording now.
    """
    for claim, figures in attempts:
        _record(
            connection,
            run_id,
            claim,
            figures,
            outcome="released",
            kind=None if reason is None else reason.kind,
            error=None if reason is None else str(reason),
        )


def _hold(connection: Connection, run_id: str, claim: Claim) -> bool:
    """Locks the queue row; False when this very attempt ended already.

    That happens when the connection broke before the answer to a commit: it must not run twice.

    Raises:
        ClaimLostError: another run holds the recording.
        TakenForDeadError: others go on with all that this run held.
    """
    require_alive(connection, run_id)
    row = sql.lock_claim(
        connection, recording_id=claim.recording_id, run_id=run_id, claim_id=claim.attempt_id
    )
    if row is not None:
        sql.yield_to_others(connection)
        return True
    if sql.attempt_is_recorded(connection, attempt_id=claim.attempt_id):
        return False
    raise ClaimLostError(f"another run took over recording {claim.recording_id}")


@contextlib.contextmanager
def _pipeline(connection: Connection, chunks: int) -> Iterator[None]:
    """An answer is waited for only where one is read.

    In the middle of a pipeline the server does not see that its client is frozen, so the whole
    transaction has a limit; PostgreSQL has one from 17 on.
    """
    if connection.info.server_version < FIRST_WITH_TRANSACTION_TIMEOUT:
        yield
        return
    with connection.pipeline():
        seconds = PUBLISHING_SECONDS + chunks // PUBLISHED_IN_A_SECOND
        sql.limit_transaction(connection, timeout=f"{seconds}s")
        yield


def insert_chunks(connection: Connection, recording_id: str, transcript: Transcript) -> None:
    """Writes the chunks of a recording that has none, with all but their vectors."""
    chunks, call = transcript.chunks, transcript.call
    sql.insert_chunks(
        connection,
        recording_id=recording_id,
        indexes=[each.index for each in chunks],
        texts=[each.text for each in chunks],
        hashes=[each.content_hash for each in chunks],
        token_counts=[each.token_count for each in chunks],
        speakers=[json.dumps(each.speakers) for each in chunks],
        starts=[each.start_seconds for each in chunks],
        ends=[each.end_seconds for each in chunks],
        first_positions=[each.first_position for each in chunks],
        last_positions=[each.last_position for each in chunks],
        repeated=[each.repeated for each in chunks],
        turns=[json.dumps(_turns(each)) for each in chunks],
        call_title=call.title,
        call_recorded_at=call.recorded_at,
        user_id=call.user_id,
    )
    sql.store_words(connection, recording_id=recording_id)
    sql.describe_recording(
        connection,
        recording_id=recording_id,
        cut_as=transcript.cut_as,
        speakers=list({name for each in chunks for name in each.speakers}),
        chunks=len(chunks),
        **asdict(call),
    )


def _turns(chunk: Chunk) -> dict[str, list[Any]]:
    """Each fact of the turns as an array; of the speaker, the place among the chunk's speakers."""
    return {
        "offsets": [turn.offset for turn in chunk.turns],
        "positions": [turn.position for turn in chunk.turns],
        "seconds": [turn.start_seconds for turn in chunk.turns],
        "speakers": [
            chunk.speakers.index(turn.speaker) + 1 if turn.speaker else None for turn in chunk.turns
        ],
    }


def _record(
    connection: Connection,
    run_id: str,
    claim: Claim,
    figures: AttemptFigures,
    *,
    outcome: str,
    kind: ErrorKind | None = None,
    error: str | None = None,
) -> None:
    sql.record_attempt(
        connection,
        attempt_id=claim.attempt_id,
        recording_id=claim.recording_id,
        run_id=run_id,
        outcome=outcome,
        error_kind=kind,
        error=error,
        **asdict(figures),
    )
