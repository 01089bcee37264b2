"""What both doors share: their configuration, the engine call, and how outcomes become events."""

from collections.abc import Iterable, Iterator

import dagster as dg
from pydantic import Field

from embedding_assets.engine.embedding import Lane, Outcome, Result
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError

TRANSCRIPT_CHUNKS = dg.AssetKey("transcript_chunks")
MOST_NAMED = 20  # failed recordings that a message lists


class EmbedConfig(dg.Config):
    """How to embed."""

    lane: Lane = Field(
        default=Lane.standard,
        description="standard: vectors are inserted 50 rows at a time; small_batch: 5, for"
        " recordings that are large or failed before.",
    )
    insert_batch: int | None = Field(
        default=None, ge=1, le=1_000, description="Rows the first insert takes, if not the lane's."
    )


class WorkerConfig(EmbedConfig):
    """How to embed, and what."""

    recording_ids: list[str] = Field(
        default=[],
        description="Embed these recordings, in whatever state they are, instead of what is due.",
    )
    time_budget_seconds: int | None = Field(
        default=None, ge=1, description="Stop taking recordings after this long."
    )


def materialization(outcome: Outcome) -> dg.AssetMaterialization:
    """The event that makes the recording's partition show as materialized."""
    figures = outcome.figures
    metadata: dict[str, dg.MetadataValue] = {
        "chunks": dg.MetadataValue.int(figures.chunks),
        "embedded": dg.MetadataValue.int(figures.embedded),
        "reused": dg.MetadataValue.int(figures.reused),
        "tokens": dg.MetadataValue.int(figures.tokens),
        "seconds": dg.MetadataValue.float(round(figures.seconds, 3)),
        "lane": dg.MetadataValue.text(str(figures.lane)),
        "model": dg.MetadataValue.text(figures.model),
    }
    if figures.cost_usd is not None:
        metadata["cost_usd"] = dg.MetadataValue.float(figures.cost_usd)
    return dg.AssetMaterialization(
        TRANSCRIPT_CHUNKS, partition=outcome.recording_id, metadata=metadata
    )


def materializations(
    log: dg.DagsterLogManager, outcomes: Iterable[Outcome]
) -> Iterator[dg.AssetMaterialization]:
    """One event for each recording as it is published; at the end the failures, in one Failure.

    Raises:
        dg.Failure: recordings failed, or the configuration lets nothing succeed.
    """
    failed: list[Outcome] = []
    try:
        for outcome in outcomes:
            if outcome.result is Result.PUBLISHED:
                yield materialization(outcome)
            elif outcome.result is Result.FAILED:
                failed.append(outcome)
                log.error(f"{outcome.recording_id}: {outcome.error_kind}: {outcome.error}")
            else:
                log.info(f"{outcome.recording_id}: {outcome.result}")
    except ConfigurationError as error:
        raise _failure(f"configuration: {error}", kind=error.kind) from None
    except EmbeddingAssetsError as error:
        raise _failure(f"stopped: {error}", kind=error.kind) from None
    if failed:
        named = "; ".join(
            f"{o.recording_id}: {o.error_kind}: {o.error}" for o in failed[:MOST_NAMED]
        )
        more = f"; and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
        raise _failure(f"{len(failed)} recordings failed: {named}{more}", failed=failed)


def _failure(text: str, *, kind: str | None = None, failed: Iterable[Outcome] = ()) -> dg.Failure:
    metadata: dict[str, dg.MetadataValue] = {
        "failed_recordings": dg.MetadataValue.json([o.recording_id for o in failed])
    }
    if kind is not None:
        metadata["error_kind"] = dg.MetadataValue.text(kind)
    # The queue decides when to try again; a retry of the run would not know what is due.
    return dg.Failure(text, metadata=metadata, allow_retries=False)
