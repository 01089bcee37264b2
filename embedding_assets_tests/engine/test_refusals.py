"""A model that refuses texts: is it the text, or is it the configuration?"""

from collections.abc import Sequence
from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError, ErrorKind, InvalidInputError
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.queue import Claims
from embedding_assets_tests.calls import (
    CHUNKING,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

MARKER = "unacceptable"
REFUSES_ALL = Fault(status=400)
STATES = "SELECT DISTINCT status, attempts FROM embedding_queue"


def _is_marked(texts: Sequence[str]) -> bool:
    return any(MARKER in text for text in texts)


def _add_calls(database: Database, number: int, marked: Sequence[int] = ()) -> None:
    with database.transaction() as connection:
        for n in range(number):
            texts = talk(f"r{n}", 60)
            if n in marked:
                texts[7] += MARKER
            add_call(connection, f"r{n:02}", texts)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_api_that_refuses_everything_is_a_configuration_error_and_costs_no_attempt(
    database: Database, api: LoopbackAPI, embed: Embed, concurrency: int
) -> None:
    _add_calls(database, 40)
    api.faults = [REFUSES_ALL]
    with pytest.raises(ConfigurationError, match=r"answered 400.* recordings.*OPENAI_BASE_URL"):
        embed(embedder=embedder_of(api, concurrency=concurrency))
    assert rows(database, STATES) == [("pending", 0)]
    outcomes = "SELECT DISTINCT outcome, error_kind FROM embedding_attempts"
    assert rows(database, outcomes) == [("released", "configuration")]
    assert api.stats.requests < 100  # of 40 recordings with some fifteen texts each
    api.faults = []
    assert {o.result for o in embed()} == {Result.PUBLISHED}


def test_an_api_that_names_the_input_in_every_refusal_is_believed(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, 6)
    api.faults = [Fault(status=400, param="input")]
    assert [o.error_kind for o in embed()] == [ErrorKind.INVALID_INPUT] * 6


def test_two_recordings_that_an_api_refuses_fail_for_themselves(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, 2)
    api.faults = [REFUSES_ALL]
    assert {o.error_kind for o in embed()} == {ErrorKind.INVALID_INPUT}
    assert rows(database, STATES) == [("failed", 1)]
    # A doomed recording is asked for no more.
    assert api.stats.requests < 40


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("marked", [range(5), range(35, 40), (3, 9, 20, 30)])
def test_a_few_recordings_that_are_refused_fail_alone_wherever_they_stand(
    database: Database, api: LoopbackAPI, embed: Embed, marked: Sequence[int], concurrency: int
) -> None:
    _add_calls(database, 40, marked)
    api.faults = [Fault(status=400, when=_is_marked)]
    outcomes = embed(embedder=embedder_of(api, concurrency=concurrency))
    failed = {o.recording_id for o in outcomes if o.result is Result.FAILED}
    assert failed == {f"r{n:02}" for n in marked}
    assert len(outcomes) == 40
    assert api.stats.sent_twice == []


def test_what_is_accepted_late_still_tells_bad_texts_from_a_bad_configuration(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        for n in range(16):
            add_call(connection, f"r{n:02}", [f"{MARKER} {n}" if n < 4 else f"Hello from {n}."])
    api.faults = [
        Fault(status=400, when=_is_marked),
        Fault(stall=1.0, when=lambda texts: not _is_marked(texts)),
    ]
    embedder = embedder_of(api)
    limits = embedder.limits
    # The bad ones are in one request, and slow ones are under way beside it.
    embedder.limits = type(limits)(4, limits.max_tokens, limits.max_input_tokens, 4)
    outcomes = embed(embedder=embedder)
    failed = {o.recording_id for o in outcomes if o.result is Result.FAILED}
    assert failed == {f"r{n:02}" for n in range(4)}
    assert len(outcomes) == 16


def test_dead_letters_that_were_refused_before_are_no_sign_of_a_wrong_configuration(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, 5, range(5))
    api.faults = [Fault(status=400, when=_is_marked)]
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
            " error_kind = 'invalid_input', last_error = 'x', next_attempt_at = now()"
        )
    claims = Claims(database, "recovery")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    outcomes: list[Outcome] = list(run.embed(claims.dead_letters()))
    assert [o.error_kind for o in outcomes] == [ErrorKind.INVALID_INPUT] * 5
    states = "SELECT DISTINCT status, attempts, recoveries FROM embedding_queue"
    assert rows(database, states) == [("dead_letter", 4, 1)]


def test_what_is_in_doubt_ends_when_the_rest_must_wait_for_it(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, 3, [0])
    with database.transaction() as connection:
        connection.execute("UPDATE embedding_queue SET crashes = 9 WHERE recording_id > 'r00'")
    api.faults = [Fault(status=400, when=_is_marked)]
    results: dict[str, Any] = {o.recording_id: o.result for o in embed()}
    expected = {"r00": Result.FAILED, "r01": Result.PUBLISHED, "r02": Result.PUBLISHED}
    assert results == expected


@pytest.mark.parametrize(("param", "names"), [("input", True), ("input[3]", True), (None, False)])
def test_a_refusal_tells_whether_the_server_named_the_input(
    api: LoopbackAPI, param: str | None, names: bool
) -> None:
    api.faults = [Fault(status=400, param=param)]
    with pytest.raises(InvalidInputError) as raised:
        embedder_of(api).embed(["hello"])
    assert (raised.value.names_input, raised.value.requests) == (names, 1)
