from datetime import timedelta

from embedding_assets.engine.database import Database
from embedding_assets.engine.sweeping import sweep
from embedding_assets.engine.vectors import hold_vectors
from embedding_assets_tests.calls import Embed, add_call, rows, talk

NOW = timedelta(0)


def _vectors(database: Database) -> int:
    return int(rows(database, "SELECT count(*) FROM chunk_embeddings")[0][0])


def test_what_a_deleted_call_said_is_swept_and_nothing_else(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 40))
        add_call(connection, "b", talk("b", 40))
    embed()
    assert sweep(database, grace=NOW) == 0
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    embed()
    before = _vectors(database)
    assert sweep(database) == 0  # younger than the grace
    swept = sweep(database, grace=NOW)
    assert 0 < swept < before
    orphans = rows(
        database,
        "SELECT count(*) FROM chunk_embeddings e FULL JOIN transcript_chunks c"
        " USING (content_hash) WHERE e.id IS NULL OR c.recording_id IS NULL",
    )
    assert orphans == [(0,)]


def test_vectors_that_are_being_published_are_passed_over(
    database: Database, database_url: str, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 40))
    embed()
    with database.transaction() as connection:
        connection.execute("DELETE FROM transcript_chunks")
    with Database(database_url) as publishing, publishing.transaction() as connection:
        (model, content_hash), *_ = connection.execute(
            "SELECT model, content_hash FROM chunk_embeddings"
        ).fetchall()
        assert hold_vectors(connection, model, [content_hash]) == {content_hash}
        before = _vectors(database)
        assert sweep(database, grace=NOW) == before - 1
    assert rows(database, "SELECT content_hash FROM chunk_embeddings") == [(content_hash,)]
