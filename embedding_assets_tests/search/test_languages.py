"""Changing the language: search goes on meanwhile, and nothing that is published is missed."""

from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError
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
