"""Changing the language: search goes on meanwhile, and nothing that is published is missed."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError, TransientError
from embedding_assets.search import languages
from embedding_assets.search.languages import live_language, switch_language
from embedding_assets.search.search import Mode, search
from embedding_assets_tests.calls import Embed, add_call, embedder_of, rows
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.search.conftest import Publish


@pytest.fixture
def ask(database: Database, api: LoopbackAPI) -> Any:
    def ask(question: str) -> set[str]:
        answer = search(database, embedder_of(api), question, mode=Mode.keyword)
        return {hit.recording_id for hit in answer.hits}

    return ask


def test_words_are_read_as_the_language_has_them(
    database: Database, publish: Publish, ask: Any
) -> None:
    publish({"a": ["Die Häuser wurden verkauft."]})
    assert ask("Haus verkaufen") == set()
    assert switch_language(database, "german") == 1
    assert ask("Haus verkaufen") == {"a"}
    with database.transaction() as connection:
        assert live_language(connection) == "german"
    tables = (
        "SELECT relname FROM pg_class WHERE relname LIKE 'chunk\\_words\\_%%' AND relkind = 'r'"
    )
    assert [row[0] for row in rows(database, tables)] == ["chunk_words_german"]
    switch_language(database, "english")
    assert ask("verkauft") == {"a"}


def test_search_goes_on_and_what_is_published_meanwhile_is_found(
    database: Database,
    publish: Publish,
    embed: Embed,
    ask: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(languages, "CHUNKS_AT_ONCE", 2)
    publish({f"r{n}": [f"The zebra number {n} ran."] for n in range(7)})
    seen: list[int] = []

    def progress(chunks: int) -> None:
        seen.append(len(ask("zebras")))
        if len(seen) == 2:
            with database.transaction() as connection:
                add_call(connection, "late", ["A zebra that came late."])
            embed("late")

    switch_language(database, "simple", progress)
    assert min(seen) == 7
    assert ask("zebra") == {*(f"r{n}" for n in range(7)), "late"}
    assert ask("zebras") == set()  # the simple configuration has no word stems


def test_a_language_that_the_server_does_not_have_is_named(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="SEARCH_LANGUAGE"):
        switch_language(database, "klingon")


def test_what_is_being_published_when_the_language_comes_is_not_missed(
    database: Database, database_url: str, publish: Publish, ask: Any
) -> None:
    publish({"a": ["The zebra ran."]})
    with Database(database_url) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction() as connection:
            # As a publication that has written its words, in the languages that it knew of.
            connection.execute(
                "INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text,"
                " content_hash, token_count, speakers, first_position, last_position)"
                " VALUES ('b', 0, 'A late zebra.', sha256('b'), 1, '{}', 0, 0)"
            )
            connection.execute(
                "INSERT INTO chunk_words (language, recording_id, chunk_index, words)"
                " VALUES ('english', 'b', 0, to_tsvector('english', 'A late zebra.'))"
            )
            switching = pool.submit(switch_language, database, "simple")
            time.sleep(0.5)
            assert not switching.done()
        switching.result(timeout=30)
    assert ask("zebra") == {"a", "b"}


def test_a_transaction_that_never_ends_is_named(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages, "SETTLE_SECONDS", 0.2)
    with Database(database_url) as other, other.transaction() as connection:
        connection.execute("SELECT pg_current_xact_id()")
        with pytest.raises(TransientError, match="open for"):
            switch_language(database, "simple")


def test_without_a_language_the_mend_is_named(
    database: Database, publish: Publish, ask: Any
) -> None:
    publish({"a": ["The zebra ran."]})
    with database.transaction() as connection:
        connection.execute("DELETE FROM search_languages")
    with (
        pytest.raises(EmbeddingAssetsError, match="switch-language"),
        database.transaction() as connection,
    ):
        connection.execute("SELECT FROM search_transcript_chunks('zebra')")
    switch_language(database, "english")
    assert ask("zebra") == {"a"}
