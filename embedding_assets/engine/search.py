"""Finds the published chunks nearest in meaning to a question."""

from dataclasses import dataclass
from datetime import datetime

from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.engine.vectors import require_live


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that matches, best first; `similarity` is the cosine, at most 1."""

    recording_id: str
    chunk_index: int
    title: str | None
    recorded_at: datetime | None
    speakers: tuple[str, ...]
    start_seconds: float | None
    end_seconds: float | None
    text: str
    similarity: float


def search(
    database: Database,
    embedder: Embedder,
    question: str,
    *,
    limit: int = 10,
    recording_id: str | None = None,
) -> list[Hit]:
    """The `limit` chunks nearest to `question`, in one recording or in all.

    Raises:
        InvalidInputError: the question is empty.
        ConfigurationError: the embedder's model is not the live one, or cannot be used.
    """
    if not question.strip():
        raise InvalidInputError("the question is empty: say what to search for")
    with database.transaction() as connection:
        require_live(connection, embedder)
    query = embedder.embed([question]).vectors[0]
    with database.transaction() as connection:
        rows = sql.nearest_chunks(
            connection, model=embedder.model, query=query, recording_id=recording_id, limit=limit
        )
        return [
            Hit(
                recording_id=row.recording_id,
                chunk_index=row.chunk_index,
                title=row.call_title,
                recorded_at=row.call_recorded_at,
                speakers=tuple(row.speakers),
                start_seconds=row.start_seconds,
                end_seconds=row.end_seconds,
                text=row.chunk_text,
                similarity=float(row.similarity),
            )
            for row in rows
        ]
