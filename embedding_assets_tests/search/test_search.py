"""What is found, by which mode, narrowed how, and what a hit says."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets.search.search import Filters, Hit, Mode, search
from embedding_assets_tests.calls import Embed, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI
from embedding_assets_tests.search.conftest import Publish

RENEWAL = ["We talked about the renewal.", "The discount on ERR-5012 was forty per cent."]
DEPOT = [
    "The depot audit is on Monday.",
    "Write to ines@example.com about the state-of-the-art lift.",
]


def _ids(hits: tuple[Hit, ...]) -> set[str]:
    return {hit.recording_id for hit in hits}


@pytest.fixture
def ask(database: Database, api: LoopbackAPI) -> Any:
    def ask(question: str, **settings: Any) -> tuple[Hit, ...]:
        return search(database, embedder_of(api), question, **settings).hits

    return ask


@pytest.mark.parametrize(
    ("question", "recording"),
    [
        ("ERR-5012", "renewal"),
        ("err-5012 discount", "renewal"),
        ("5012", "renewal"),
        ("ines@example.com", "depot"),
        ("state-of-the-art", "depot"),
        ('"depot audit"', "depot"),
        ("what did they say about discounts?", "renewal"),
    ],
)
def test_words_are_found_as_people_type_them(
    publish: Publish, ask: Any, question: str, recording: str
) -> None:
    publish({"renewal": RENEWAL, "depot": DEPOT, "other": talk("other", 20)})
    assert ask(question, mode=Mode.keyword)[0].recording_id == recording


def test_a_phrase_must_be_there_and_a_barred_word_must_not(publish: Publish, ask: Any) -> None:
    publish(
        {
            "together": ["The red door was open."],
            "apart": ["The door was red and open."],
            "neither": ["The window was open."],
        }
    )
    for mode in Mode:
        assert _ids(ask('"red door" open', mode=mode)) == {"together"}
        assert "together" not in _ids(ask("open door -red", mode=mode))
    assert _ids(ask('open -"red door"', mode=Mode.keyword)) == {"apart", "neither"}


def test_a_question_of_common_words_alone_is_answered(publish: Publish, ask: Any) -> None:
    publish({"hamlet": ["He asked: to be or not to be."], "other": ["A sentence of another call."]})
    assert _ids(ask("to be or not to be", mode=Mode.keyword)) == {"hamlet"}
    assert _ids(ask("to be or not to be")) == {"hamlet", "other"}


def test_a_new_corpus_is_searched_before_its_words_are_counted(
    database: Database, embed: Embed, publish: Publish, ask: Any
) -> None:
    publish({"renewal": RENEWAL})
    with database.transaction() as connection:
        connection.execute("DELETE FROM search_lexemes")
        connection.execute("UPDATE search_languages SET counted_chunks = 0, mean_words = 0")
    assert _ids(ask("discount", mode=Mode.keyword)) == {"renewal"}


def test_a_rare_word_weighs_more_than_a_common_one(publish: Publish, ask: Any) -> None:
    calls = {f"c{n}": [f"The meeting number {n} was about the budget."] for n in range(20)}
    publish({**calls, "zebra": ["A zebra walked past."]})
    assert ask("zebra budget", mode=Mode.keyword)[0].recording_id == "zebra"


def test_words_near_each_other_weigh_more_than_words_apart(publish: Publish, ask: Any) -> None:
    publish(
        {
            "apart": ["The remote was here. Nobody knew why. Somebody lost control of the lights."],
            "near": ["Somebody lost the remote control. Nobody knew why the lights were here."],
        }
    )
    near, apart = ask("remote control", mode=Mode.keyword)
    assert (near.recording_id, apart.recording_id) == ("near", "apart")
    assert near.word_score > apart.word_score


FILTERS = {
    "recordings": (Filters(recordings=["b"]), {"b"}),
    "a speaker's whole name": (Filters(speakers=["ann"]), {"a", "b", "c"}),
    "a speaker nobody is": (Filters(speakers=["Anna"]), set()),
    "title": (Filters(title="pricing rev"), {"a"}),
    "dates": (
        Filters(since=datetime(2026, 3, 1, tzinfo=UTC), until=datetime(2026, 4, 1, tzinfo=UTC)),
        {"a"},
    ),
    "platform": (Filters(platforms=["zoom"]), {"b"}),
    "owner": (Filters(owners=["u1"]), {"a"}),
    "not a recording": (Filters(not_recordings=["a", "c"]), {"b"}),
    "not a title": (Filters(not_title="pricing"), {"b", "c"}),
    "not a platform": (Filters(not_platforms=["zoom"]), {"a", "c"}),
    "not an owner": (Filters(not_owners=["u1"]), {"b", "c"}),
    "not a speaker": (Filters(not_speakers=["ANN"]), set()),
    "two at once": (Filters(title="pricing", platforms=["zoom"]), set()),
}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("name", FILTERS)
def test_filters_narrow_every_mode(publish: Publish, ask: Any, mode: Mode, name: str) -> None:
    publish(
        {"a": ["About the budget.", "Yes."]},
        title="Pricing review",
        recorded_at="2026-03-04",
        user_id="u1",
        source_platform="fathom",
    )
    publish({"b": ["The budget again.", "No."]}, title="Weekly", source_platform="zoom")
    publish({"c": ["A third budget.", "So."]}, title="Standup", recorded_at="2026-05-04")
    filters, expected = FILTERS[name]
    assert _ids(ask("budget", mode=mode, filters=filters)) == expected


def test_a_filter_that_nobody_knows_is_an_error(database: Database, publish: Publish) -> None:
    publish({"a": ["About the budget."]})
    with pytest.raises(EmbeddingAssetsError), database.transaction() as connection:
        connection.execute(
            "SELECT * FROM search_transcript_chunks('budget', filters => '{\"colour\": \"red\"}')"
        )


def test_one_call_does_not_fill_the_page_unless_others_do_not(publish: Publish, ask: Any) -> None:
    long = [f"The budget of item {n} is discussed at length here again." for n in range(60)]
    publish({"long": long, "short": ["A word on the budget."]})
    first = ask("budget", limit=4, per_recording=2, mode=Mode.keyword)
    assert len(first) == 4
    assert "short" in _ids(first)
    alone = ask("budget", limit=4, per_recording=2, filters=Filters(recordings=["long"]))
    assert len(alone) == 4


def test_a_hit_says_where_and_which_words(publish: Publish, ask: Any) -> None:
    publish(
        {"a": [*talk("a", 30), "The zebra ate our purple invoice.", *talk("b", 30)]},
        url="https://fathom.video/calls/1",
        recorded_at="2026-03-04T10:00:00Z",
        title="Zoo",
    )
    hit = ask("purple zebras", context=1)[0]
    assert {hit.text[a:b] for a, b in hit.marks} == {"zebra", "purple"}
    assert set(hit.matched_words) == {"purpl", "zebra"}
    assert (hit.title, hit.recorded_at) == ("Zoo", datetime(2026, 3, 4, 10, tzinfo=UTC))
    assert hit.link == "https://fathom.video/calls/1"
    assert len(hit.before) == 1
    assert len(hit.after) == 1
    excerpt, marks = hit.excerpt(80)
    assert {excerpt[a:b] for a, b in marks} == {"zebra", "purple"}
    assert len(excerpt) <= 84


def test_a_date_that_is_unknown_stays_unknown(publish: Publish, ask: Any) -> None:
    publish({"a": ["The zebra."]})
    assert ask("zebra")[0].recorded_at is None


def test_characters_that_mark_words_are_taken_out_of_what_was_said(
    publish: Publish, ask: Any
) -> None:
    publish({"a": ["The \ue000zebra\ue001 ran."]})
    hit = ask("ran")[0]
    assert "\ue000" not in hit.text
    assert {hit.text[a:b] for a, b in hit.marks} == {"ran"}


def test_without_the_model_words_answer_and_the_answer_says_so(
    database: Database, api: LoopbackAPI, publish: Publish
) -> None:
    publish({"renewal": RENEWAL})
    api.faults = [Fault(stall=5.0)]
    started = time.monotonic()
    answer = search(database, embedder_of(api), "discount", seconds=0.2)
    assert time.monotonic() - started < 4.0
    assert answer.mode is Mode.keyword
    assert answer.notice is not None
    assert "only words were searched" in answer.notice
    assert _ids(answer.hits) == {"renewal"}
    with pytest.raises(TransientError):
        search(database, embedder_of(api), "discounts", mode=Mode.semantic, seconds=0.2)


def test_a_refused_key_is_named_and_words_answer(
    database: Database, api: LoopbackAPI, publish: Publish
) -> None:
    publish({"renewal": RENEWAL})
    api.faults = [Fault(status=401)]
    answer = search(database, embedder_of(api), "the discount")
    assert _ids(answer.hits) == {"renewal"}
    assert "OPENAI_API_KEY" in (answer.notice or "")
    with pytest.raises(ConfigurationError):
        search(database, embedder_of(api), "the discount?", mode=Mode.semantic)


def test_a_question_asked_again_is_not_embedded_again(
    database: Database, api: LoopbackAPI, publish: Publish
) -> None:
    publish({"renewal": RENEWAL})
    embedder = embedder_of(api)
    search(database, embedder, "what was the discount on it")
    before = api.stats.requests
    search(database, embedder, "what was the discount on it")
    assert api.stats.requests == before


@pytest.mark.parametrize("question", ["", "   \n"])
def test_an_empty_question_is_an_error(database: Database, api: LoopbackAPI, question: str) -> None:
    with pytest.raises(InvalidInputError):
        search(database, embedder_of(api), question)


@pytest.mark.parametrize(
    "question",
    [
        "'",
        "\\",
        "a' | b",
        "' & !x:*",
        "%s $1 {}",
        '"',
        '-"',
        "- -",
        "\x00zebra",
        "é" * 9_000,
        " ".join(f"word{n}" for n in range(2_000)),
    ],
)
def test_whatever_is_typed_is_no_error(publish: Publish, ask: Any, question: str) -> None:
    publish({"a": ["The zebra's \\ 'budget' is here.", "Yes."]})
    for mode in Mode:
        ask(question, mode=mode)


def test_what_is_withdrawn_or_published_again_leaves_no_words_behind(
    database: Database, publish: Publish, embed: Embed
) -> None:
    publish({"a": ["The zebra."], "b": ["The heron."]})
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
        connection.execute("UPDATE fathom_transcripts SET text = 'The stork.'")
    embed("a")
    embed("b")
    words = rows(database, "SELECT recording_id, words::text FROM chunk_words")
    assert [tuple(row) for row in words] == [("b", "'ann':1 'stork':3")]
    described = rows(database, "SELECT recording_id, chunk_count FROM published_recordings")
    assert [tuple(row) for row in described] == [("b", 1)]
