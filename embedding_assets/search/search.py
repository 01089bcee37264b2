"""Finds the published chunks nearest in meaning to a question."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql as compose

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.engine.vector_index import sealed_parts
from embedding_assets.engine.vectors import require_live
from embedding_assets.search.statements import sql

Vector = NDArray[np.float32]

# What the signs pick to be compared by the whole vectors: more where there are fewer signs.
SIGNS_COMPARED = 150_000
FEWEST_CANDIDATES, MOST_CANDIDATES = 100, 400
CANDIDATES_A_HIT = 10
EFFORT = 64  # pgvector's ef_search
LAST_ID = 2**63 - 1

_WORD = re.compile(r"\w+")
_STEM = 4  # letters that tell a word, whatever its ending
_COMMON = {
    "about",
    "does",
    "from",
    "have",
    "said",
    "says",
    "that",
    "their",
    "them",
    "then",
    "there",
}
_COMMON |= {"they", "this", "were", "what", "when", "where", "which", "will", "with", "would"}


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

    def excerpt(self, question: str, length: int = 240) -> str:
        """About `length` characters, from the turn on that shares most words with the question."""
        words = [w for w in _WORD.findall(question.lower()) if len(w) >= _STEM and w not in _COMMON]
        asked = {word[:_STEM] for word in words}
        lines = self.text.split("\n")

        def shared(number: int) -> int:
            said = " ".join(lines[number : number + 2]).lower()
            return len(asked & {word[:_STEM] for word in _WORD.findall(said)})

        best = max(range(len(lines)), key=lambda number: (shared(number), -number))
        shown = " ".join(" ".join(lines[best:]).split())
        before = "… " if best else ""
        if len(shown) <= length:
            return before + shown
        return f"{before}{shown[:length].rsplit(' ', 1)[0]} …"


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
        if recording_id is None:
            rows = nearest_chunks(connection, embedder.model, query, limit)
        else:
            rows = sql.nearest_in_recording(
                connection,
                model=embedder.model,
                query=query,
                recording_id=recording_id,
                limit=limit,
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


def nearest_chunks(
    connection: Connection, model: str, query: Vector, limit: int, *, effort: int = EFFORT
) -> list[Any]:
    """The published chunks nearest to a vector of this model, with their similarity.

    First by the vectors' signs, of which each part of the vector index has a graph, and what is
    newer than any part is read through; then the best candidates by the whole vectors.
    """
    sql.set_search_effort(connection, effort=str(effort))
    parts = sealed_parts(connection, model)
    statement = search_statement(model, len(query), list(parts), limit)
    return connection.execute(statement, {"query": query}).fetchall()


def search_statement(
    model: str, dimensions: int, parts: Sequence[Any], limit: int
) -> compose.Composed:
    """One statement with a branch for each part, and one for each range between and after them."""
    values = {
        "model": compose.Literal(model),
        "dimensions": compose.Literal(dimensions),
        "query": compose.Placeholder("query"),
        "candidates": compose.Literal(candidates(dimensions, limit)),
        "limit": compose.Literal(limit),
    }
    branches = [
        _template(sql.nearest_in_part if is_part else sql.nearest_outside).format(
            from_id=compose.Literal(from_id), to_id=compose.Literal(to_id), **values
        )
        for from_id, to_id, is_part in ranges(parts)
    ]
    return _template(sql.nearest_of_all).format(
        branches=compose.SQL(" UNION ALL ").join(branches), **values
    )


def candidates(dimensions: int, limit: int) -> int:
    """How many vectors are compared whole for a search of so many hits."""
    by_signs = min(MOST_CANDIDATES, SIGNS_COMPARED // dimensions)
    return max(FEWEST_CANDIDATES, by_signs, CANDIDATES_A_HIT * limit)


def ranges(parts: Sequence[Any]) -> Iterator[tuple[int, int, bool]]:
    """All ids there can be, in ranges that are a part of the index, or none."""
    end = 0
    for part in parts:
        if part.from_id > end:
            yield end, part.from_id, False
        yield part.from_id, part.to_id, True
        end = part.to_id
    yield end, LAST_ID, False


def _template(statement: Any) -> compose.SQL:
    return compose.SQL(statement.sql.rstrip().removesuffix(";"))
