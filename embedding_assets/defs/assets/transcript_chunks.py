"""`transcript_chunks`: materializing a partition chunks and embeds that recording."""

import warnings
from collections.abc import Iterator

import dagster as dg

from embedding_assets.defs.assets.sources import fathom_calls, fathom_transcripts
from embedding_assets.defs.partitions import recordings
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS, EmbedConfig, run_session

COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("recording_id", "text", "the partition key"),
        dg.TableColumn("chunk_index", "integer", "from 0, in the order it was said"),
        dg.TableColumn("chunk_text", "text", "the exact text that was embedded"),
        dg.TableColumn("content_hash", "bytea", "SHA-256 of the text: the vector's address"),
        dg.TableColumn("token_count", "integer", "as this project counts tokens"),
        dg.TableColumn("speakers", "text[]", "in the order they first speak"),
        dg.TableColumn("start_seconds", "double precision", "from the call's start"),
        dg.TableColumn("end_seconds", "double precision", "from the call's start"),
        dg.TableColumn("first_position", "integer", "of the segments it is made of"),
        dg.TableColumn("last_position", "integer", "included"),
        dg.TableColumn("call_title", "text", "as the recorder gives it"),
        dg.TableColumn("call_recorded_at", "timestamptz", "NULL: unknown"),
        dg.TableColumn("user_id", "text", "whose call it is"),
        dg.TableColumn("repeated", "integer", "characters that the chunk before ends with"),
        dg.TableColumn("turn_offsets", "integer[]", "where in the text each turn begins"),
        dg.TableColumn("turn_positions", "integer[]", "of the turns' segments"),
        dg.TableColumn("turn_seconds", "real[]", "when each turn began"),
        dg.TableColumn("turn_speakers", "integer[]", "each turn's place in speakers, from 1"),
    ]
)
"""The columns of the table; a test holds them equal to the real ones."""

# Dagster calls backfill policies beta; a person can do nothing about it.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)


@dg.asset(
    key=TRANSCRIPT_CHUNKS,
    deps=[fathom_calls, fathom_transcripts],
    partitions_def=recordings,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=50),
    # A range of partitions is one run. Each partition is materialized by an event of its own, so
    # that the failed ones stay unmaterialized.
    output_required=False,
    group_name="embeddings",
    kinds={"postgres", "pgvector"},
    owners=["team:embedding-assets"],
    tags={"contains": "what-was-said"},
    description="The chunks of each recording's transcript, embedded and searchable.",
    metadata={"dagster/table_name": "transcript_chunks", "dagster/column_schema": COLUMNS},
)
def transcript_chunks(
    context: dg.AssetExecutionContext, config: EmbedConfig, engine: EmbeddingEngine
) -> Iterator[dg.AssetMaterialization]:
    """Embeds the recordings of the run's partition or range, also those that are not due."""
    keys = context.partition_keys
    with engine.beating(context.run.run_id, context.instance):
        yield from run_session(context, engine, config, lambda session: session.these(keys))
