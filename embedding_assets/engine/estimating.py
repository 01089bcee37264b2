"""What embedding would cost, in tokens, money and time, before anything is spent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedding_assets.engine.batch_work import DISCOUNT
from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.embedders import Embedder, cost_usd
from embedding_assets.engine.model import Chunk
from embedding_assets.engine.transcripts import read_transcript
from embedding_assets.engine.vectors import stored_hashes

AT_ONCE = 500  # texts whose vectors are looked up in one statement


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be embedded, and what that costs."""

    recordings: int
    chunks: int  # all of them
    new_chunks: int  # different texts that the model has no vector of
    tokens: int  # of these, as the model has counted others, else as this project counts
    cost_usd: float | None  # None: the price is not known
    batch_cost_usd: float | None  # by the provider's batch API; None, too, for a local model
    seconds: float | None  # at the pace of the model's last attempts; None: there are none


def due_recordings(
    database: Database, settings: ChunkSettings
) -> Iterator[tuple[str, tuple[Chunk, ...]]]:
    """The recordings that the system means to embed, due now or later, in chunks."""
    for recording_id in database.retrying(
        lambda c: [row.recording_id for row in sql.unfinished_recordings(c)]
    ):
        transcript = database.retrying(
            lambda c, id=recording_id: read_transcript(c, id, settings),  # type: ignore[misc]
            snapshot=True,
        )
        if transcript is not None:
            yield recording_id, transcript.chunks


def estimate(
    database: Database,
    embedder: Embedder,
    recordings: Iterable[tuple[str, tuple[Chunk, ...]]],
) -> Estimate:
    """What embedding these recordings, given in chunks, would cost."""
    number = chunks = 0
    new: dict[bytes, int] = {}  # tokens by hash
    waiting: dict[bytes, int] = {}
    for _, of_one in recordings:
        number += 1
        chunks += len(of_one)
        waiting.update({each.content_hash: each.token_count for each in of_one})
        if len(waiting) >= AT_ONCE:
            new.update(_without_vector(database, embedder, waiting))
            waiting.clear()
    new.update(_without_vector(database, embedder, waiting))
    return _estimate(
        database,
        embedder,
        recordings=number,
        chunks=chunks,
        new_chunks=len(new),
        tokens=sum(new.values()),
    )


def estimate_model(database: Database, embedder: Embedder) -> Estimate:
    """What embedding everything that is published with this model would cost."""
    found = database.retrying(lambda c: sql.published_without_vector(c, model=embedder.model))
    return _estimate(database, embedder, **found._asdict())


def _without_vector(
    database: Database, embedder: Embedder, texts: dict[bytes, int]
) -> dict[bytes, int]:
    stored = database.retrying(lambda c: stored_hashes(c, embedder.model, texts))
    return {each: tokens for each, tokens in texts.items() if each not in stored}


def _estimate(
    database: Database,
    embedder: Embedder,
    *,
    recordings: int,
    chunks: int,
    new_chunks: int,
    tokens: int,
) -> Estimate:
    seen = database.retrying(lambda c: sql.model_history(c, model=embedder.model))
    counted = round(tokens * (seen.counted_share or 1.0))
    cost = cost_usd(counted, embedder.price_per_million_tokens)
    return Estimate(
        recordings=recordings,
        chunks=chunks,
        new_chunks=new_chunks,
        tokens=counted,
        cost_usd=cost,
        batch_cost_usd=None if cost is None or embedder.pace is None else cost * DISCOUNT,
        seconds=counted / seen.tokens_a_second if seen.tokens_a_second else None,
    )
