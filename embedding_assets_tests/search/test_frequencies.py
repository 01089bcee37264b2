"""The counts that words are weighed by: complete, added to, made anew when they have drifted."""

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.search import frequencies
from embedding_assets.search.frequencies import count_words
from embedding_assets_tests.calls import Embed, rows
from embedding_assets_tests.search.conftest import Publish

TRUE = "SELECT word, ndoc FROM ts_stat('SELECT words FROM chunk_words') ORDER BY word"
COUNTED = "SELECT lexeme, chunks FROM search_lexemes ORDER BY lexeme"
LANGUAGE = "SELECT counted_chunks, mean_words FROM search_languages"


def _agrees(database: Database) -> bool:
    return [tuple(r) for r in rows(database, TRUE)] == [tuple(r) for r in rows(database, COUNTED)]


def test_what_is_published_is_counted_once_whatever_the_slices(
    database: Database, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequencies, "SLICE", 3)
    publish({f"a{n}": [f"The zebra ate number {n}."] for n in range(10)})
    assert _agrees(database)
    publish({f"b{n}": [f"The heron saw number {n}."] for n in range(10)})
    assert _agrees(database)
    assert count_words(database).chunks == 0
    ((chunks, mean_words),) = rows(database, LANGUAGE)
    assert chunks == 20
    lengths = rows(database, "SELECT avg(length(words))::float FROM chunk_words")
    assert mean_words == pytest.approx(lengths[0][0])


def test_what_has_drifted_is_counted_anew(
    database: Database, publish: Publish, embed: Embed
) -> None:
    publish({f"a{n}": [f"The zebra ate number {n}."] for n in range(20)})
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'a1'")
    embed("a1")
    assert not count_words(database).recounted  # a little less is no matter
    assert not _agrees(database)
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET text = 'The stork.'")
    embed()
    assert count_words(database).recounted
    assert _agrees(database)


def test_a_language_that_somebody_else_counts_is_left_to_them(
    database: Database, database_url: str, publish: Publish, embed: Embed
) -> None:
    publish({"a": ["The zebra."]})
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET text = 'The stork.'")
    embed()
    with Database(database_url) as other, other.transaction() as connection:
        connection.execute("SELECT FROM search_languages FOR UPDATE")
        assert count_words(database).chunks == 0
    assert count_words(database).chunks
    assert _agrees(database)
