"""Accounts with small quotas: everything is embedded, nothing fails, and nothing is sent twice."""

from datetime import timedelta
from typing import Any

import pytest

from embedding_assets.engine.budget import Budget, Spending
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders.openai import Retries
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.pace import Ceilings
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.switching import switch_model
from embedding_assets.engine.vectors import InsertBatch
from embedding_assets.health.configuration import Expected
from embedding_assets.health.findings import Severity
from embedding_assets.health.judging import Thresholds, examine
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, embedder_of, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI, Quota

PATIENT = Retries(attempts=6, first_wait=0.02, longest_wait=2.0)
PRICE = 20.0  # US dollars for a million tokens


def _add(database: Database, recordings: int, turns: int = 12) -> None:
    with database.transaction() as connection:
        for number in range(recordings):
            add_call(connection, f"r{number}", talk(f"r{number}", turns))


def _ends(database: Database) -> list[Any]:
    return rows(
        database, "SELECT status, attempts, count(*) FROM embedding_queue GROUP BY 1, 2 ORDER BY 1"
    )


QUOTAS = {
    "fewer tokens than one request has by default": Quota(tokens=1_500, minute=0.5),
    "nothing told": Quota(tokens=1_500, minute=0.5, tells="nothing"),
    "only the rest told": Quota(tokens=1_500, minute=0.5, tells="remaining"),
    "three requests": Quota(tokens=4_000, requests=3, minute=0.5, tells="nothing"),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_small_quota_embeds_everything(
    database: Database, api: LoopbackAPI, embed: Embed, name: str
) -> None:
    quota = QUOTAS[name]
    api.quota = Quota(quota.tokens, quota.requests, quota.minute, quota.tells)
    _add(database, 40)
    outcomes = embed(embedder=embedder_of(api, retries=PATIENT))
    assert len(outcomes) == 40
    assert _ends(database) == [("completed", 0, 40)]
    assert api.stats.sent_twice == []
    totals = rows(database, "SELECT sum(requests) AS r, sum(tokens) AS t FROM embedding_attempts")
    assert totals == [(api.stats.requests, api.stats.tokens)]
    assert rows(database, "SELECT count(*) FROM embedding_attempts WHERE outcome = 'failed'") == [
        (0,)
    ]


def test_refusals_between_answers_cost_no_recording_an_attempt(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(database, 10)
    count = iter(range(10_000))
    api.faults = [Fault(status=429, when=lambda _: next(count) % 3 > 0)]
    impatient = Retries(attempts=6, first_wait=0.001, longest_wait=0.05)
    embedder = embedder_of(
        api, retries=impatient, ceilings=Ceilings(request_tokens=300), concurrency=1
    )
    embed(embedder=embedder)
    assert _ends(database) == [("completed", 0, 10)]


def test_a_run_that_would_have_to_wait_for_too_long_gives_back_and_says_until_when(
    database: Database, api: LoopbackAPI
) -> None:
    _add(database, 5)
    api.faults = [Fault(status=429, headers={"retry-after": "7200"}, after=1)]
    run = EmbeddingRun(
        database,
        embedder_of(api, retries=PATIENT, ceilings=Ceilings(request_tokens=600)),
        CHUNKING,
        Claims(database, "run", timedelta(minutes=5)),
        patience=timedelta(minutes=30),
    )
    list(run.embed(Claims(database, "run", timedelta(minutes=5)).due()))
    assert run.stopped is not None
    assert "lets nothing more be sent before" in run.stopped
    assert {(status, attempts) for status, attempts, _ in _ends(database)} <= {
        ("pending", 0), ("completed", 0),
    }  # fmt: skip
    assert rows(database, "SELECT count(*) FROM embedding_queue WHERE claimed_by IS NOT NULL") == [
        (0,)
    ]


def test_a_model_is_filled_within_a_small_quota(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(database, 20)
    embed()
    api.quota = Quota(tokens=1_500, minute=0.5)
    new = embedder_of(api, model="text-embedding-3-large", dimensions=16, retries=PATIENT)
    (total,) = rows(database, "SELECT count(DISTINCT content_hash) FROM transcript_chunks")
    assert switch_model(database, new, InsertBatch(50)) == total[0]


def _spend(database: Database, api: LoopbackAPI, budget: Budget) -> EmbeddingRun:
    embedder = embedder_of(api, price_per_million_tokens=PRICE)
    most = budget.in_tokens(embedder.price_per_million_tokens)
    assert most is not None
    claims = Claims(database, "run", timedelta(minutes=5))
    run = EmbeddingRun(database, embedder, CHUNKING, claims, spending=Spending(database, most))
    list(run.embed(claims.due()))
    return run


@pytest.mark.parametrize("budget", [Budget(tokens=2_000), Budget(usd=2_000 * PRICE / 1e6)])
def test_a_run_takes_no_recording_that_would_pass_the_budget(
    database: Database, api: LoopbackAPI, budget: Budget
) -> None:
    _add(database, 40)
    run = _spend(database, api, budget)
    assert run.stopped is not None
    assert "the budget of the day is spent" in run.stopped
    assert 400 <= api.stats.tokens <= 2_000  # texts count as their upper bound before an answer
    ends = {status: number for status, _, number in _ends(database)}
    assert ends.keys() == {"completed", "pending"}
    assert rows(
        database, "SELECT error_kind, count(*) FROM embedding_attempts WHERE outcome = 'released'"
        " GROUP BY 1"
    ) == [("budget", 1)]  # fmt: skip
    expected = Expected(model=None, tokens_a_day=2_000)

    def severity() -> Severity:
        found = examine(database, Thresholds(), expected).findings
        return next(each.severity for each in found if each.name == "budget")

    assert severity() is Severity.CRITICAL
    before = api.stats.tokens
    assert _spend(database, api, budget).stopped is not None
    assert api.stats.tokens - before <= 2_000 - before
    raised = Budget(tokens=1_000_000)
    assert _spend(database, api, raised).stopped is None
    assert _ends(database) == [("completed", 0, 40)]
    assert severity() is Severity.WARNING
    health = examine(database, Thresholds(), expected)
    assert sum(each.tokens for each in health.costs) == api.stats.tokens
    assert sum(each.cost_usd or 0 for each in health.costs) == pytest.approx(
        api.stats.tokens * PRICE / 1e6
    )


def test_what_costs_nothing_is_published_though_the_budget_is_spent(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(database, 2)
    embed()
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_calls SET title = 'Another title'")
        connection.execute("UPDATE embedding_queue SET status = 'pending', next_attempt_at = now()")
    assert _spend(database, api, Budget(tokens=0)).stopped is None
    assert _ends(database) == [("completed", 0, 2)]


def test_a_budget_in_dollars_needs_a_price() -> None:
    with pytest.raises(ConfigurationError, match="EMBEDDING_PRICE_PER_MILLION_TOKENS"):
        Budget(usd=1).in_tokens(None)
    assert Budget(usd=1).in_tokens(0) is None
    assert Budget(usd=1, tokens=100).in_tokens(1.0) == 100
