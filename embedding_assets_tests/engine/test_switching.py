from collections.abc import Sequence

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.engine.switching import switch_model
from embedding_assets.engine.vectors import InsertBatch
from embedding_assets.search.search import Filters, Mode, search
from embedding_assets_tests.calls import Embed, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI


def _live(database: Database) -> list[object]:
    return [row[0] for row in rows(database, "SELECT model FROM embedding_models WHERE is_live")]


def test_search_reads_the_old_model_until_the_new_one_is_whole(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(30):
            add_call(connection, f"r{number}", talk(f"r{number}", 40))
    embed()
    old, new = embedder_of(api), embedder_of(api, model="text-embedding-3-large", dimensions=16)
    limits = new.limits
    new.limits = type(limits)(20, limits.max_tokens, limits.max_input_tokens, 1)
    api.faults = [Fault(status=503, after=3)]
    with pytest.raises(TransientError):
        switch_model(database, new, InsertBatch(50))
    api.faults = []
    assert _live(database) == [old.model]
    assert search(database, old, "sentence number 7 of r3")
    already = rows(database, "SELECT count(*) FROM chunk_embeddings WHERE model = %s", [new.model])[
        0
    ][0]
    (total,) = rows(database, "SELECT count(DISTINCT content_hash) FROM transcript_chunks")
    assert 0 < already < total[0]
    assert switch_model(database, new, InsertBatch(50)) == total[0] - already
    assert _live(database) == [new.model]
    assert search(database, new, "sentence number 7 of r3", mode=Mode.semantic).hits
    assert embed("r3", embedder=new)[0].figures.embedded == 0


def test_a_question_finds_the_call_where_it_was_said(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", [*talk("a", 30), "The zebra ate our purple invoice."])
        add_call(connection, "b", talk("b", 30))
    embed()
    embedder = embedder_of(api)
    first, *_ = search(database, embedder, "which purple invoice did the zebra eat").hits
    assert first.recording_id == "a"
    shown, marks = first.excerpt(80)
    assert "zebra" in [shown[a:b] for a, b in marks]
    assert first.similarity is not None
    assert first.similarity <= 1
    everywhere = search(database, embedder, "purple zebra", mode=Mode.semantic, limit=3).hits
    assert len(everywhere) == 3
    assert [h.similarity for h in everywhere] == sorted(
        (h.similarity or 0.0 for h in everywhere), reverse=True
    )
    in_b = search(
        database, embedder, "zebra", mode=Mode.semantic, filters=Filters(recordings=["b"])
    )
    assert {h.recording_id for h in in_b.hits} == {"b"}


SPENT = "SELECT sum(requests)::int AS requests, sum(tokens)::int AS tokens FROM embedding_attempts"


def test_what_a_switch_costs_is_written_down_whatever_goes_wrong(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(10):
            add_call(connection, f"r{number}", talk(f"r{number}", 40))
    embed()
    new = embedder_of(api, model="text-embedding-3-large", dimensions=16)
    limits = new.limits
    new.limits = type(limits)(20, limits.max_tokens, limits.max_input_tokens, 1)
    api.faults = [
        Fault(status=500, times=1, after=1),
        Fault(status=400, param="input", when=_is_about_number_7),
        Fault(status=401, after=4),
    ]
    with pytest.raises(ConfigurationError):
        switch_model(database, new, InsertBatch(50))
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]
    api.faults.pop()
    switch_model(database, new, InsertBatch(50))
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]
    # A switch that failed says nothing of the system that goes on with the old model.
    kinds = "SELECT DISTINCT error_kind FROM embedding_attempts WHERE error_kind IS NOT NULL"
    assert rows(database, kinds) == [("invalid_input",)]
    assert rows(database, "SELECT DISTINCT status, attempts FROM embedding_queue") == [
        ("completed", 0)
    ]


def _is_about_number_7(texts: Sequence[str]) -> bool:
    return any("In r7 I say sentence number 7 " in text for text in texts)


def test_a_text_that_the_new_model_refuses_is_told_and_does_not_hold_up_the_switch(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(10):
            add_call(connection, f"r{number}", talk(f"r{number}", 40))
    embed()
    new = embedder_of(api, model="text-embedding-3-large", dimensions=16)
    api.faults = [Fault(status=400, param="input", when=_is_about_number_7)]
    told: list[tuple[str, str]] = []
    embedded = switch_model(database, new, InsertBatch(50), refused=lambda *each: told.append(each))
    assert _live(database) == [new.model]
    assert told
    assert {recording_id for recording_id, _ in told} == {"r7"}
    assert all("refuses" in reason and "sentence" not in reason for _, reason in told)
    (total,) = rows(database, "SELECT count(DISTINCT content_hash) FROM transcript_chunks")
    assert embedded == total[0] - len(told)


def test_a_new_model_that_refuses_everything_is_not_switched_to(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(10):
            add_call(connection, f"r{number}", talk(f"r{number}", 40))
    embed()
    old, new = _live(database), embedder_of(api, model="text-embedding-3-large", dimensions=16)
    api.faults = [Fault(status=400)]
    before = api.stats.requests
    with pytest.raises(ConfigurationError, match="accepted none"):
        switch_model(database, new, InsertBatch(50))
    assert _live(database) == old
    assert api.stats.requests - before < 20
