"""`vector_index`: materializing a partition builds that part of the index."""

import dagster as dg

from embedding_assets.defs.assets.transcript_chunks import transcript_chunks
from embedding_assets.defs.partitions import PARTS, vector_index_parts
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.engine import vector_index as parts
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.engine.vector_index import Built, Part

VECTOR_INDEX = dg.AssetKey("vector_index")


@dg.asset(
    key=VECTOR_INDEX,
    # A part covers vectors of many recordings. If it depended on all partitions, Dagster would read
    # every one of them.
    deps=[
        dg.AssetDep(transcript_chunks, partition_mapping=dg.SpecificPartitionsPartitionMapping([]))
    ],
    partitions_def=vector_index_parts,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    group_name="embeddings",
    kinds={"postgres", "pgvector"},
    description="The vector index. Each partition is a part that covers a range of vectors; the job"
    " maintain_vector_index adds, merges and drops parts. Materialize one to build it again.",
    metadata={"dagster/table_name": "chunk_embeddings"},
)
def vector_index(
    context: dg.AssetExecutionContext, engine: EmbeddingEngine
) -> dg.MaterializeResult[None]:
    """Builds one part while readers and writers go on.

    Raises:
        dg.Failure: there is no such part, or it cannot be built now.
    """
    name = context.partition_key
    try:
        with engine.database() as database:
            part = parts.find(database, name)
            if part is None or part.state == "dropping":
                raise dg.Failure(
                    f"{name} is no part of the index any more: a larger one took it in, and the job"
                    " maintain_vector_index deletes its partition"
                )
            built = engine.index_builder().build(database, part, context.log.info)
    except EmbeddingAssetsError as error:
        raise dg.Failure(f"{name} was not built: {error}", allow_retries=False) from None
    return dg.MaterializeResult(metadata=part_metadata(built))


def build_waiting_parts(context: dg.OpExecutionContext, engine: EmbeddingEngine) -> None:
    """Builds and merges parts until none is worth it, and updates the partitions.

    Raises:
        EmbeddingAssetsError: a part was not built; the next run goes on from there.
    """
    instance = context.instance
    with engine.database() as database:
        builder = engine.index_builder()
        while (part := parts.begin(database, engine.index_policy())) is not None:
            instance.add_dynamic_partitions(PARTS, [part.index_name])
            context.log.info(_begun(part))
            built = builder.build(database, part, context.log.info)
            context.log_event(
                dg.AssetMaterialization(
                    VECTOR_INDEX, partition=part.index_name, metadata=part_metadata(built)
                )
            )
        builder.drop(database, parts.replaced_parts(database))
        there = {part.index_name for part in database.retrying(parts.all_parts)}
    for name in set(instance.get_dynamic_partitions(PARTS)) - there:
        instance.delete_dynamic_partition(PARTS, name)


def part_metadata(built: Built) -> dict[str, dg.MetadataValue]:
    """The metadata of a built part."""
    return {
        "vectors": dg.MetadataValue.int(built.rows),
        "bytes": dg.MetadataValue.int(built.bytes),
        "seconds": dg.MetadataValue.float(round(built.seconds, 3)),
        "model": dg.MetadataValue.text(built.part.model),
        "from_id": dg.MetadataValue.int(built.part.from_id),
        "to_id": dg.MetadataValue.int(built.part.to_id),
        "took_in": dg.MetadataValue.text(", ".join(built.replaced) or "no other part"),
    }


def _begun(part: Part) -> str:
    return f"building {part.index_name}: ids {part.from_id:,} to {part.to_id:,} of {part.model}"
