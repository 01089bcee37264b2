"""What was said around hits, as passages to be read: turns with their speakers and times."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedding_assets.engine.database import Connection
from embedding_assets.search.calls import Said, said
from embedding_assets.search.search import Hit
from embedding_assets.search.statements import sql


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a call around a hit."""

    hit: Hit
    turns: tuple[Said, ...]


def passages(connection: Connection, hits: Iterable[Hit], neighbours: int) -> Iterator[Passage]:
    """A passage for each hit, best first; nothing is said in two of them.

    Args:
        connection: in a transaction of `access.reading`.
        hits: as search found them.
        neighbours: how many chunks before and after each hit belong to its passage.
    """
    shown: dict[str, set[int]] = {}
    for hit in hits:
        known = shown.setdefault(hit.recording_id, set())
        first, last = hit.chunk_index - neighbours, hit.chunk_index + neighbours
        rows = [
            row
            for row in sql.neighbours(
                connection, recording_id=hit.recording_id, first=first, last=last
            )
            if row.chunk_index not in known
        ]
        if any(row.chunk_index == hit.chunk_index for row in rows):
            known.update(row.chunk_index for row in rows)
            yield Passage(hit, tuple(said(rows, {hit.chunk_index: hit.marks})))
