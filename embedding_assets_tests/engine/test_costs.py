"""Whatever happens, the attempts add up to what the API server counted."""

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from embedding_assets.engine import embedding
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders.openai import Retries
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.engine.queue import Claim, Claims
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
SPENT = "SELECT sum(requests)::int AS requests, sum(tokens)::int AS tokens FROM embedding_attempts"


def _run(
    database: Database, api: LoopbackAPI, *, inputs: int = 4, **settings: Any
) -> tuple[Claims, EmbeddingRun]:
    """A run whose requests are small, so that many are made."""
    embedder = embedder_of(api, **settings)
    limits = embedder.limits
    embedder.limits = type(limits)(
        inputs, limits.max_tokens, limits.max_input_tokens, limits.concurrency
    )
    claims = Claims(database, "run")
    return claims, EmbeddingRun(database, embedder, CHUNKING, claims)


def _add_calls(database: Database, number: int) -> None:
    with database.transaction() as connection:
        for n in range(number):
            add_call(connection, f"r{n:02}", talk(f"r{n}", 12))


def _refuses(texts: Any) -> bool:
    return any(MARKER in text for text in texts)


def _is_not_of_the_first(texts: Any) -> bool:
    return not any("In r0 I" in text for text in texts)


def _faults(random_: random.Random) -> list[Fault]:
    """A handful of things that go wrong, each somewhere in the run."""
    kinds: list[dict[str, Any]] = [
        {"status": 429, "headers": {"retry-after": "0"}},
        {"status": 500},
        {"drop": True},
        {"truncate": True},
        {"body": b"{}"},
        {"status": 503, "stall": 0.4},  # longer than the client waits
    ]
    faults = [
        Fault(**random_.choice(kinds), times=random_.randint(1, 4), after=random_.randrange(12))
        for _ in range(3)
    ]
    refusal = Fault(status=400, param="input", when=_refuses)
    stop = Fault(status=401, after=random_.randint(2, 20))
    return [*random_.choice(([], [stop])), refusal, *faults]


@pytest.mark.parametrize("seed", range(12))
def test_requests_and_tokens_of_attempts_are_the_servers_whatever_goes_wrong(
    database: Database, api: LoopbackAPI, seed: int
) -> None:
    random_ = random.Random(seed)
    _add_calls(database, 15)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET text = text || %s"
            " WHERE recording_id = 'r07' AND position = 3",
            [MARKER],
        )
    api.faults = _faults(random_)
    api.latency = random_.choice((0.0, 0.02))
    claims, run = _run(database, api, timeout=0.2)
    outcomes = run.embed(claims.due())
    try:
        for _ in range(random_.choice((1, 5, 100))):
            next(outcomes)
    except (EmbeddingAssetsError, StopIteration):
        pass
    finally:
        outcomes.close()  # type: ignore[attr-defined]  # it is a generator: this is a cancel
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]
    assert rows(database, "SELECT 1 FROM embedding_queue WHERE status = 'processing'") == []
    # What the run paid for is there; nothing will be paid for twice.
    (stored,) = rows(database, "SELECT count(*)::int AS vectors FROM chunk_embeddings")
    assert stored.vectors == len(api.stats.inputs)


def test_requests_under_way_when_a_run_stops_are_counted_and_what_they_bring_is_kept(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, 15)
    api.faults = [Fault(stall=0.5, when=_is_not_of_the_first)]
    claims, run = _run(database, api)
    outcomes = run.embed(claims.due())
    next(outcomes)
    under_way = api.stats.requests - api.stats.answered
    outcomes.close()  # type: ignore[attr-defined]
    assert under_way > 0
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]
    api.faults = []
    assert {o.result for o in embed()} == {Result.PUBLISHED}
    assert api.stats.sent_twice == []
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]


def test_a_request_that_outlasts_its_run_is_counted_without_its_tokens(
    database: Database, api: LoopbackAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_calls(database, 15)
    monkeypatch.setattr(embedding, "STOPPING_SECONDS", 0.1)
    api.faults = [Fault(stall=3.0, when=_is_not_of_the_first)]
    claims, run = _run(database, api)
    outcomes = run.embed(claims.due())
    next(outcomes)
    tokens = api.stats.tokens
    outcomes.close()  # type: ignore[attr-defined]
    assert api.stats.requests > api.stats.answered > 0
    assert rows(database, SPENT) == [(api.stats.requests, tokens)]


def test_what_a_configuration_error_cuts_short_is_released_with_its_cost_and_reason(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, 15)
    api.faults = [Fault(status=401, after=3)]
    claims, run = _run(database, api, inputs=10, concurrency=1)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        list(run.embed(claims.due()))
    released = rows(
        database,
        "SELECT DISTINCT error_kind, error FROM embedding_attempts WHERE outcome = 'released'",
    )
    assert [row.error_kind for row in released] == ["configuration"]
    assert "OPENAI_API_KEY" in released[0].error
    assert rows(database, SPENT) == [(4, api.stats.tokens)]
    assert rows(database, "SELECT DISTINCT attempts FROM embedding_queue") == [(0,)]


def test_a_configuration_error_that_cost_nothing_is_told_once(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add_calls(database, 30)
    embed()
    with database.transaction() as connection:
        connection.execute("TRUNCATE embedding_attempts")
        connection.execute("UPDATE embedding_queue SET status = 'pending'")
        connection.execute("INSERT INTO embedding_models (model, dimensions) VALUES ('other', 1)")
    claims, run = _run(database, api)

    def claimed() -> Iterator[Claim | None]:
        with database.transaction() as connection:  # meanwhile, search is switched
            connection.execute("UPDATE embedding_models SET is_live = false WHERE is_live")
            connection.execute("UPDATE embedding_models SET is_live = true WHERE model = 'other'")
        yield from claims.due()

    with pytest.raises(ConfigurationError, match="switched"):
        list(run.embed(claimed()))
    attempts = "SELECT outcome, error_kind, requests, tokens FROM embedding_attempts"
    assert rows(database, attempts) == [("released", "configuration", 0, 0)]


def test_an_api_that_is_down_is_paid_for_by_what_was_asked(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, 15)
    api.faults = [Fault(status=503, after=6)]
    claims, run = _run(database, api)
    outcomes: list[Outcome] = list(run.embed(claims.due()))
    assert {o.result for o in outcomes} <= {Result.FAILED, Result.PUBLISHED}
    assert len(outcomes) < 15
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]


def test_vectors_of_the_wrong_length_are_paid_for(database: Database) -> None:
    _add_calls(database, 3)
    with LoopbackAPI(dimensions=16) as api:
        claims, run = _run(database, api, dimensions=32, model="some-model")
        with pytest.raises(ConfigurationError, match="EMBEDDING_DIMENSIONS"):
            list(run.embed(claims.due()))
        assert api.stats.tokens > 0
        assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]


def test_a_run_that_lost_its_claims_tells_what_it_spent(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    _add_calls(database, 1)

    def steal(_: object) -> bool:
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE embedding_queue SET claimed_by = 'another run'")
        return False

    api.faults = [Fault(when=steal)]
    claims, run = _run(database, api)
    assert [o.result for o in run.embed(claims.due())] == [Result.CLAIM_LOST]
    assert rows(database, "SELECT outcome, error_kind FROM embedding_attempts") == [
        ("released", None)
    ]
    assert rows(database, SPENT) == [(api.stats.requests, api.stats.tokens)]


def test_what_was_released_is_not_processed_in_the_totals_of_a_run(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, 15)
    api.faults = [Fault(status=401, after=3)]
    claims, run = _run(database, api, inputs=10, concurrency=1)
    published: list[Outcome] = []
    with pytest.raises(ConfigurationError):
        published.extend(run.embed(claims.due()))

    def totals(connection: Connection) -> Any:
        return sql.run_totals(connection, run_id="run")

    summary = database.retrying(totals)
    (done,) = rows(database, "SELECT count(*) FROM embedding_queue WHERE status = 'completed'")
    assert (summary.processed, summary.failed) == (done[0], 0)
    assert summary.tokens == api.stats.tokens


def test_a_client_that_gives_up_counts_its_retries(api: LoopbackAPI) -> None:
    api.faults = [Fault(status=503)]
    embedder = embedder_of(api, retries=Retries(attempts=4, first_wait=0.001, longest_wait=0.01))
    with pytest.raises(EmbeddingAssetsError) as raised:
        embedder.embed(["hello"])
    assert raised.value.requests == api.stats.requests == 4
