"""The worker: one run that claims what is due until nothing is."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from embedding_assets.embed import WorkerConfig, materializations
from embedding_assets.partitions import add_partitions
from embedding_assets.resources import EmbeddingEngine


@dg.op(
    out={},
    description="Claims recordings that are due, embeds them, and claims again until none is.",
)
def embed_due_recordings(
    context: dg.OpExecutionContext, config: WorkerConfig, engine: EmbeddingEngine
) -> Iterator[dg.AssetMaterialization]:
    """Logs the same event for each recording as materializing its partition would."""
    recording_ids = engine.discover()
    add_partitions(context.instance, recording_ids)
    if config.recording_ids:
        outcomes = engine.embed_these(
            context.run_id,
            config.recording_ids,
            lane=config.lane,
            insert_batch=config.insert_batch,
        )
    else:
        budget = config.time_budget_seconds
        outcomes = engine.embed_due(
            context.run_id,
            lane=config.lane,
            insert_batch=config.insert_batch,
            time_budget=None if budget is None else timedelta(seconds=budget),
        )
    yield from materializations(context.log, outcomes)


@dg.job(description="Embeds every recording that is due. Any number of these may run at once.")
def embed_recordings() -> None:
    """The graph of one op."""
    embed_due_recordings()
