"""Embeds the table `chunks` with CocoIndex; run by the peer's own Python.

python benchmarks/peer_cocoindex.py postgresql://... DIMENSIONS
"""

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import asyncpg
import cocoindex as coco
import numpy as np
from cocoindex.connectors import postgres
from cocoindex.resources.schema import VectorSchema
from numpy.typing import NDArray
from openai import AsyncOpenAI

# Its own embedder, through LiteLLM, takes 64; 64, 200 and 400 take the same time here.
TEXTS_A_REQUEST = 200

URL, DIMENSIONS = sys.argv[1], int(sys.argv[2])
POOL = coco.ContextKey[asyncpg.Pool]("pool")
CLIENT = AsyncOpenAI()


@dataclass
class Chunk:
    """A row of what is to be embedded."""

    id: int
    chunk_text: str


@dataclass
class Embedded:
    """A row of what it makes."""

    id: int
    chunk_text: str
    embedding: Annotated[NDArray[np.float32], VectorSchema(np.dtype(np.float32), DIMENSIONS)]


@coco.lifespan
async def resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """The connections to the database."""
    async with asyncpg.create_pool(URL) as pool:
        builder.provide(POOL, pool)
        yield


@coco.fn.as_async(batching=True, max_batch_size=TEXTS_A_REQUEST)
async def embed(texts: list[str]) -> list[NDArray[np.float32]]:
    """Vectors of texts, which CocoIndex gathers from the rows that wait for theirs."""
    # The client asks for base64 by itself, and decodes it with numpy.
    answer = await CLIENT.embeddings.create(
        model="text-embedding-3-small", input=texts, dimensions=DIMENSIONS
    )
    return [np.asarray(each.embedding, dtype=np.float32) for each in answer.data]


@coco.fn
async def embed_row(chunk: Chunk, table: postgres.TableTarget[Embedded]) -> None:
    """One row; not memoized, as nothing is run twice."""
    table.declare_row(row=Embedded(chunk.id, chunk.chunk_text, await embed(chunk.chunk_text)))


@coco.fn
async def main() -> None:
    """All rows, each a component, as its documentation does."""
    table = await postgres.mount_table_target(
        POOL,
        "cocoindex_vectors",
        await postgres.TableSchema.from_class(Embedded, primary_key=["id"]),
    )
    source = postgres.PgTableSource(coco.use_context(POOL), table_name="chunks", row_type=Chunk)
    await coco.mount_each(embed_row, source.fetch_rows().items(lambda row: row.id), table)


if __name__ == "__main__":
    # What it remembers of its rows is in a file: here, of this run alone.
    with tempfile.TemporaryDirectory() as state:
        os.environ["COCOINDEX_DB"] = state
        coco.App(coco.AppConfig(name="peer"), main).update_blocking()
