"""What a worker and a run of partitions share: their configuration, the engine call, the events."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
from pydantic import Field

from embedding_assets.defs.partitions import has_partition
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError, ErrorKind
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.publication import AttemptFigures
from embedding_assets.engine.session import Session
from embedding_assets.search.links import link_at

TRANSCRIPT_CHUNKS = dg.AssetKey("transcript_chunks")
ERROR_KIND_TAG = "embedding_assets/error_kind"
STOPPED_TAG = "embedding_assets/stopped"  # why a run left work that was due
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
    take_over: str | None = Field(
        default=None,
        description="A run that is known to have ended: what it still holds is free at once.",
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


def materialization(
    outcome: Outcome, run_id: str, *, share_title: bool = False
) -> dg.AssetMaterialization:
    """The event that makes the recording's partition show as materialized.

    It says which call that is and what was published. A title may be private: it is there only
    where `share_title` says so.
    """
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
    metadata |= _published(outcome, run_id, share_title=share_title)
    if figures.cost_usd is not None:
        metadata["cost_usd"] = dg.MetadataValue.float(figures.cost_usd)
    return dg.AssetMaterialization(
        TRANSCRIPT_CHUNKS, partition=outcome.recording_id, metadata=metadata
    )


def _published(outcome: Outcome, run_id: str, *, share_title: bool) -> dict[str, dg.MetadataValue]:
    """Which call it is, and which version of its transcript which run published."""
    metadata: dict[str, dg.MetadataValue] = {"published_by": dg.MetadataValue.dagster_run(run_id)}
    if outcome.version is not None:
        metadata["transcript_version"] = dg.MetadataValue.text(outcome.version)
    call = outcome.call
    if call is None:
        return metadata
    link = link_at(call.url, None)  # None for whatever is no web address
    if link is not None:
        metadata["recording"] = dg.MetadataValue.url(link)
    if call.recorded_at is not None:
        metadata["recorded_at"] = dg.MetadataValue.timestamp(call.recorded_at)
    if call.duration_seconds is not None:
        metadata["duration_seconds"] = dg.MetadataValue.float(call.duration_seconds)
    if share_title and call.title:
        metadata["title"] = dg.MetadataValue.text(call.title)
    return metadata


@dataclass(slots=True)
class WithoutPartition:
    """What a run published of recordings that have no partition; one event tells of them all."""

    recordings: int = 0
    chunks: int = 0
    embedded: int = 0
    tokens: int = 0

    def add(self, figures: AttemptFigures) -> None:
        """Counts one more."""
        self.recordings += 1
        self.chunks += figures.chunks
        self.embedded += figures.embedded
        self.tokens += figures.tokens

    def materializations(self, run_id: str) -> Iterator[dg.AssetMaterialization]:
        """The event, of the whole asset, if there is anything to tell."""
        if self.recordings:
            yield dg.AssetMaterialization(
                TRANSCRIPT_CHUNKS,
                description="Recordings without a partition: PARTITION_MONTHS gives none to calls"
                " of that age.",
                metadata={
                    "recordings_without_partition": dg.MetadataValue.int(self.recordings),
                    "chunks": dg.MetadataValue.int(self.chunks),
                    "embedded": dg.MetadataValue.int(self.embedded),
                    "tokens": dg.MetadataValue.int(self.tokens),
                    "published_by": dg.MetadataValue.dagster_run(run_id),
                },
            )


def run_session(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    engine: EmbeddingEngine,
    config: EmbedConfig,
    embed: Callable[[Session], Iterator[Outcome]],
    *,
    since: datetime | None = None,
) -> Iterator[dg.AssetMaterialization]:
    """One event for each recording as it is published; at the end the failures, in one Failure.

    Calls before `since` have no partition: one event at the end tells how many of them there were.

    Raises:
        dg.Failure: recordings failed, or the configuration lets nothing succeed.
    """
    without = WithoutPartition()
    try:
        yield from _run_session(context, engine, config, embed, since=since, without=without)
    except dg.Failure:
        yield from without.materializations(context.run.run_id)
        raise
    yield from without.materializations(context.run.run_id)


def _run_session(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    engine: EmbeddingEngine,
    config: EmbedConfig,
    embed: Callable[[Session], Iterator[Outcome]],
    *,
    since: datetime | None,
    without: WithoutPartition,
) -> Iterator[dg.AssetMaterialization]:
    failed: list[Outcome] = []
    try:
        with engine.session(
            context.run.run_id, lane=config.lane, insert_batch=config.insert_batch
        ) as session:
            session.take_over(config.take_over)
            share_title = engine.shares_titles
            for outcome in _published_ones(context.log, embed(session), failed):
                recorded_at = None if outcome.call is None else outcome.call.recorded_at
                if has_partition(recorded_at, since):
                    yield materialization(outcome, context.run.run_id, share_title=share_title)
                else:
                    without.add(outcome.figures)
            if session.stopped is not None:
                context.instance.add_run_tags(context.run.run_id, {STOPPED_TAG: session.stopped})
                context.log.warning(session.stopped)
    except ConfigurationError as error:
        # The tag, not the text, tells the failure sensor that a re-launch cannot succeed.
        context.instance.add_run_tags(context.run.run_id, {ERROR_KIND_TAG: error.kind.value})
        raise failure(f"configuration: {error}", kind=error.kind) from None
    except EmbeddingAssetsError as error:
        raise failure(f"stopped: {error}", kind=error.kind) from None
    if failed:
        named = "; ".join(_line(outcome) for outcome in failed[:MOST_NAMED])
        more = f"; and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
        raise failure(f"{len(failed)} recordings failed: {named}{more}", failed=failed)


def _published_ones(
    log: dg.DagsterLogManager, outcomes: Iterable[Outcome], failed: list[Outcome]
) -> Iterator[Outcome]:
    """Yields what was published, logs all other outcomes, and collects failures in `failed`."""
    for outcome in outcomes:
        if outcome.result is Result.PUBLISHED:
            yield outcome
        elif outcome.result is Result.FAILED:
            failed.append(outcome)
            log.error(_line(outcome))
        else:
            log.info(f"{outcome.recording_id}: {outcome.result}")


def _line(outcome: Outcome) -> str:
    return f"{outcome.recording_id}: {outcome.error_kind}: {outcome.error}"


def failure(
    text: str, *, kind: ErrorKind | None = None, failed: Iterable[Outcome] = ()
) -> dg.Failure:
    """What a run died of, with the kind where code looks for it."""
    metadata: dict[str, dg.MetadataValue] = {
        "failed_recordings": dg.MetadataValue.json([o.recording_id for o in failed])
    }
    if kind is not None:
        metadata["error_kind"] = dg.MetadataValue.text(kind.value)
    # The queue decides when to try again; a retry of the run would not know what is due.
    return dg.Failure(text, metadata=metadata, allow_retries=False)
