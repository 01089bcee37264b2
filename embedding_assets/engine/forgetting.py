"""Deletes what is published and written down of a call, and its vectors, at once."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from embedding_assets.engine.database import Connection, Database, sql

INSTEAD = "forgotten"  # of a recording's id in the ledger of what attempts cost
WITH_TEXTS = (
    "transcript_chunks", "chunk_words", "fathom_transcripts", "fathom_calls",
    "published_recordings", "call_people", "call_details", "people", "unmatched_edits",
    "search_lexemes", "call_readers", "embedding_attempts", "embedding_queue",
    "integrity_findings",
)  # fmt: skip


def batch_files(connection: Connection, recording_id: str) -> list[str]:
    """The provider's names of the files that the call's texts were sent in."""
    rows = sql.batch_files_of(connection, recording_id=recording_id)
    return sorted(row.input_file for row in rows)


def forget_published(connection: Connection, recording_id: str) -> Counter[str]:
    """Deletes chunks, words, vectors that nothing else uses, the queue row, texts of attempts.

    Gives how many rows, by table.
    """
    counts: Counter[str] = Counter()
    with _vectors_and_lexemes_follow(connection, recording_id, counts):
        counts.update(sql.forget_published(connection, recording_id=recording_id)._asdict())
    counts["embedding_attempts"] = sql.forget_attempts(
        connection, recording_id=recording_id, instead=INSTEAD
    )
    return counts


def withdraw_published(connection: Connection, recording_id: str) -> Counter[str]:
    """Deletes a call's chunks and their vectors; it is due, and embedded anew."""
    counts: Counter[str] = Counter()
    with _vectors_and_lexemes_follow(connection, recording_id, counts):
        sql.withdraw_chunks(connection, recording_id=recording_id)
        sql.forget_inputs(connection, recording_id=recording_id)
        sql.due_again(connection, recording_id=recording_id)
    return counts


@contextlib.contextmanager
def _vectors_and_lexemes_follow(
    connection: Connection, recording_id: str, counts: Counter[str]
) -> Iterator[None]:
    """While nobody publishes the call, its chunks are deleted; then what only they had.

    That is read before, and counted in `counts`.
    """
    list(sql.hold_queue_row(connection, recording_id=recording_id))
    hashes = [row.content_hash for row in sql.hashes_of(connection, recording_id=recording_id)]
    words = list(sql.words_of(connection, recording_id=recording_id))
    yield
    counts["chunk_embeddings"] = sql.forget_vectors(connection, hashes=hashes) if hashes else 0
    counts["search_lexemes"] = sql.forget_lexemes(
        connection,
        languages=[row.language for row in words],
        lexemes=[row.lexeme for row in words],
    )


def vacuum(database: Database, *, rewrite: bool) -> None:
    """Takes what was deleted out of the tables and indexes, as far as this role may.

    Without `rewrite`, bytes stay in the free space of pages until something is written over them.

    Raises:
        EmbeddingAssetsError: the database cannot be reached, or a lock was waited for too long.
    """
    how = "FULL, ANALYZE" if rewrite else "INDEX_CLEANUP ON, ANALYZE"
    with database.session() as connection:
        connection.execute("SET statement_timeout = 0")
        try:
            for table in WITH_TEXTS:
                connection.execute(f"VACUUM ({how}) {table}")
            if rewrite:
                # Samples of texts, which ANALYZE has replaced. Skipped unless as a superuser.
                connection.execute("VACUUM (FULL) pg_statistic")
            connection.execute("VACUUM (INDEX_CLEANUP ON) chunk_embeddings")
        finally:
            connection.execute("RESET statement_timeout")
