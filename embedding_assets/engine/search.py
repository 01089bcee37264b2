"""Finds the published chunks nearest in meaning to a question."""

import re
from dataclasses import dataclass
from datetime import datetime

from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.engine.vectors import require_live

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
