"""After a change of the chunk sizes, exactly what is cut otherwise is due again."""

from datetime import timedelta

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.queue import Claims, enqueue_recordings
from embedding_assets.engine.rechunking import cut_otherwise
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import LoopbackAPI

SMALLER = ChunkSettings(target=20, overlap=4, maximum=30)
DUE = "SELECT recording_id FROM embedding_queue WHERE status = 'pending' ORDER BY 1"


def test_what_is_cut_otherwise_is_told_made_due_and_cut_again(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for name in ("a", "b"):
            add_call(connection, name, talk(name, 30))
    embed()
    assert database.retrying(lambda c: cut_otherwise(c, CHUNKING)).recording_ids == ()
    found = database.retrying(lambda c: cut_otherwise(c, SMALLER))
    (chunks, tokens) = rows(
        database, "SELECT count(*), sum(token_count)::int FROM transcript_chunks"
    )[0]
    assert (found.recording_ids, found.chunks, found.tokens) == (("a", "b"), chunks, tokens)

    database.retrying(lambda c: enqueue_recordings(c, found.recording_ids))
    assert [row[0] for row in rows(database, DUE)] == ["a", "b"]
    claims = Claims(database, "again", timedelta(minutes=5))
    list(EmbeddingRun(database, embedder_of(api), SMALLER, claims).embed(claims.due()))
    assert database.retrying(lambda c: cut_otherwise(c, SMALLER)).recording_ids == ()
    assert rows(database, "SELECT count(*) FROM transcript_chunks")[0][0] > chunks


def test_what_was_published_before_it_was_told_counts_as_cut_otherwise(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
    embed()
    with database.transaction() as connection:
        connection.execute("UPDATE published_recordings SET cut_as = NULL")
    assert database.retrying(lambda c: cut_otherwise(c, CHUNKING)).recording_ids == ("a",)
