"""In how many chunks each word is: counted slice by slice as chunks are published.

What is withdrawn or published again stays in the count until a recount. Search weighs words by
these counts, so that a few per cent of difference change nothing that a person would see.
"""

from dataclasses import dataclass

from psycopg import sql as compose

from embedding_assets.engine.database import Connection, Database
from embedding_assets.search.statements import sql

SLICE = 5_000  # chunks counted in one transaction: some 0.1 s
MOST_DRIFT = 0.1  # of the chunks; beyond it everything is counted anew


@dataclass(frozen=True, slots=True)
class Counted:
    """What a count came to."""

    chunks: int  # counted now
    recounted: bool


def count_words(database: Database) -> Counted:
    """Counts what was published since the last count, in each language; all of it on much drift.

    A language that another process is counting at this moment is left to it.

    Raises:
        EmbeddingAssetsError: the database failed; the next count goes on from there.
    """
    chunks, recounted = 0, False
    for language in database.retrying(lambda c: [row.language for row in sql.languages(c)]):
        chunks += _count(database, language)
        if database.retrying(lambda c, name=language: _forget_if_drifted(c, name)):  # type: ignore[misc]
            recounted = True
            chunks += _count(database, language)
    return Counted(chunks, recounted)


def _count(database: Database, language: str) -> int:
    chunks = 0
    while (more := database.retrying(lambda c: _count_slice(c, language))) > 0:
        chunks += more
    return chunks


def _count_slice(connection: Connection, language: str) -> int:
    """Counts the next slice; gives the number of its chunks."""
    known = sql.hold_language(connection, language=language)
    if known is None:
        return 0
    found = sql.next_slice(connection, language=language, after=known.counted_until, limit=SLICE)
    if not found.chunks:
        return 0
    # ts_stat takes a query as text, which can have no parameters.
    query = compose.SQL(
        "SELECT words FROM chunk_words WHERE language = {} AND id > {} AND id <= {}"
    ).format(*map(compose.Literal, (language, known.counted_until, found.until)))
    sql.add_counts(connection, language=language, slice=query.as_string(connection))
    sql.save_counts(
        connection,
        language=language,
        chunks=found.chunks,
        words=float(found.words),
        until=found.until,
    )
    return int(found.chunks)


def _forget_if_drifted(connection: Connection, language: str) -> bool:
    known = sql.hold_language(connection, language=language)
    if known is None:
        return False
    there = sql.count_chunks(connection, language=language)
    if abs(known.counted_chunks - there) <= MOST_DRIFT * there:
        return False
    sql.forget_counts(connection, language=language)
    return True
