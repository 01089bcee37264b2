"""`transcript_chunks`: to materialize a partition is to chunk and embed that recording."""

import warnings
from collections.abc import Iterator

import dagster as dg

from embedding_assets.defs.assets.sources import fathom_calls, fathom_transcripts
from embedding_assets.defs.partitions import recordings
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS, EmbedConfig, run_session

# Dagster calls backfill policies beta; a person can do nothing about it.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)


@dg.asset(
    key=TRANSCRIPT_CHUNKS,
    deps=[fathom_calls, fathom_transcripts],
    partitions_def=recordings,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=50),
    # With it, a range's partitions are materialized one by one by the events below, and those
    # that failed stay unmaterialized.
    output_required=False,
    group_name="embeddings",
    kinds={"postgres", "pgvector"},
    description="The chunks of each recording's transcript, embedded and searchable.",
    metadata={"dagster/table_name": "transcript_chunks"},
)
def transcript_chunks(
    context: dg.AssetExecutionContext, config: EmbedConfig, engine: EmbeddingEngine
) -> Iterator[dg.AssetMaterialization]:
    """Embeds the run's partition, or its range of them, in whatever state they are."""
    keys = context.partition_keys
    yield from run_session(context, engine, config, lambda session: session.these(keys))
