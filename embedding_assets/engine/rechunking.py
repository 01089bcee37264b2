"""Recordings whose chunks were cut by other sizes than the settings name now."""

from dataclasses import dataclass

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, sql


@dataclass(frozen=True, slots=True)
class CutOtherwise:
    """What cutting again would touch; tokens as this project counts them."""

    recording_ids: tuple[str, ...]
    chunks: int
    tokens: int


def cut_otherwise(connection: Connection, settings: ChunkSettings) -> CutOtherwise:
    """The published recordings that are cut otherwise, or that do not say how they were cut."""
    rows = list(sql.cut_otherwise(connection, cut_as=settings.name))
    return CutOtherwise(
        tuple(row.recording_id for row in rows),
        sum(row.chunk_count for row in rows),
        sum(row.token_count for row in rows),
    )
