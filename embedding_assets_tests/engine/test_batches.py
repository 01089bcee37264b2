"""The batch lane on a server with files and batches: every state, killed between any two steps."""

import os
import random
import signal
from datetime import timedelta
from typing import Any

import pytest

from embedding_assets.engine.batch_work import MINUTES_OF_A_BATCH, is_worth_a_batch
from embedding_assets.engine.batches import BatchLane, BatchLimits, BatchTimes
from embedding_assets.engine.budget import Spending
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders.openai import OpenAIEmbedder
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import BudgetSpentError, ConfigurationError, TakenForDeadError
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.session import Session
from embedding_assets.engine.switching import switch_model
from embedding_assets.engine.vectors import InsertBatch
from embedding_assets.health.numbers import measure
from embedding_assets_tests.calls import (
    CHUNKING,
    DIMENSIONS,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import LoopbackAPI, Quota
from embedding_assets_tests.loopback_batches import LoopbackBatches
from embedding_assets_tests.processes import PROCESSES

PRICE = 20.0
NOW = BatchTimes(poll=timedelta(0), lease=timedelta(0), later=timedelta(0))


@pytest.fixture
def batches(api: LoopbackAPI) -> LoopbackBatches:
    """The server's batch API."""
    api.batches = LoopbackBatches()
    return api.batches


def _lane(database: Database, api: LoopbackAPI, **settings: Any) -> BatchLane:
    embedder = embedder_of(api, price_per_million_tokens=PRICE)
    return BatchLane(database, embedder, CHUNKING, **{"times": NOW, **settings})


def _add(database: Database, recordings: int, turns: int = 12) -> None:
    with database.transaction() as connection:
        for number in range(recordings):
            add_call(connection, f"r{number}", talk(f"r{number}", turns))


def _run(lane: BatchLane, looks: int = 10) -> list[str]:
    return [line for _ in range(looks) for line in lane.advance()]


def _worker(embed: Embed, api: LoopbackAPI) -> list[Any]:
    """What a worker does with what is due."""
    return embed(embedder=embedder_of(api, price_per_million_tokens=PRICE), waits=True)


def _completed(database: Database) -> int:
    (row,) = rows(database, "SELECT count(*) FROM embedding_queue WHERE status = 'completed'")
    return int(row[0])


def _is_clean(database: Database, batches: LoopbackBatches) -> None:
    assert rows(database, "SELECT count(*) FROM embedding_batch_inputs") == [(0,)]
    assert rows(database, "SELECT count(*) FROM embedding_batches WHERE state <> 'ended'") == [(0,)]
    assert batches.files == {}


def test_a_batch_embeds_what_is_due_at_half_the_price(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 20)
    lane = _lane(database, api)
    assert "20 recordings" in (lane.plan() or "")
    assert lane.plan() is None  # nothing else is due
    with database.transaction(snapshot=True) as connection:
        numbers = measure(connection)
    assert (numbers.in_batches, numbers.pending, numbers.unfinished_since) == (20, 0, None)
    assert _worker(embed, api) == []  # a worker leaves them alone
    said = _run(lane)
    assert any("completed" in line for line in said)
    assert api.stats.requests == 0
    outcomes = _worker(embed, api)
    assert len(outcomes) == 20
    assert sum(each.figures.requests for each in outcomes) == 0
    assert _completed(database) == 20
    assert api.stats.sent_twice == []
    (spent,) = rows(
        database,
        "SELECT lane, sum(tokens) AS tokens, sum(cost_usd)::float AS cost FROM embedding_attempts"
        " WHERE tokens > 0 GROUP BY 1",
    )
    assert spent == ("batch", batches.tokens, pytest.approx(batches.tokens * PRICE / 2e6))
    _is_clean(database, batches)


def test_what_a_batch_brought_is_the_workers_and_only_new_work_is_worth_another(
    database: Database, api: LoopbackAPI, batches: LoopbackBatches
) -> None:
    def is_worth() -> bool:
        with database.transaction(snapshot=True) as connection:
            return is_worth_a_batch(connection, 100)

    assert not is_worth()
    _add(database, 5)
    assert is_worth()
    lane = _lane(database, api)
    lane.plan()
    assert not is_worth()
    _run(lane)
    assert batches.created == 1
    assert not is_worth()  # due, but their vectors are there
    with database.transaction() as connection:
        add_call(connection, "new", talk("new", 20))
    assert is_worth()


def test_a_changed_recording_waits_for_what_is_in_a_batch_and_sends_the_rest(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 2, turns=30)
    lane = _lane(database, api)
    lane.plan()
    with database.transaction() as connection:
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'Quite another thing'"
            " WHERE recording_id = 'r0' AND position = 29"
        )
    assert _worker(embed, api) == []
    assert _completed(database) == 0
    _run(lane)
    _worker(embed, api)
    assert _completed(database) == 2
    assert api.stats.sent_twice == []
    _is_clean(database, batches)


def test_a_person_may_embed_what_is_in_a_batch_and_its_answer_is_kept_all_the_same(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 2)
    lane = _lane(database, api)
    lane.plan()
    _run(lane, 1)
    embed("r0")
    assert _completed(database) == 1
    _run(lane)
    _worker(embed, api)
    assert _completed(database) == 2
    _is_clean(database, batches)


def test_after_the_deadline_workers_send_the_texts_and_the_answer_is_kept(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 3)
    batches.steps = ("in_progress",) * 50 + ("completed",)
    lane = _lane(database, api)
    lane.plan()
    _run(lane, 2)
    with database.transaction() as connection:
        connection.execute("UPDATE embedding_batches SET deadline = now() - interval '1 second';")
        connection.execute("UPDATE embedding_queue SET next_attempt_at = now()")
    _worker(embed, api)
    assert _completed(database) == 3
    _run(lane, 60)
    _is_clean(database, batches)


def test_what_expired_or_was_refused_is_left_to_the_workers_and_the_rest_is_kept(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 20)
    batches.steps = ("validating", "in_progress", "expired")
    batches.expires = lambda name: name[0] in "0123"
    batches.refuses = lambda name: name[0] in "45"
    lane = _lane(database, api)
    lane.plan()
    (ended,) = [line for line in _run(lane) if "embedded" in line]
    assert "expired: " in ended
    assert "were not answered" in ended
    _worker(embed, api)
    assert _completed(database) == 20
    assert api.stats.sent_twice == []
    assert batches.tokens > 0
    assert api.stats.tokens > 0
    totals = rows(database, "SELECT sum(tokens) FROM embedding_attempts")
    assert totals == [(batches.tokens + api.stats.tokens,)]
    _is_clean(database, batches)


def test_too_much_enqueued_means_wait_and_another_failure_leaves_it_to_the_workers(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 3)
    batches.fails = ["token_limit_exceeded", "token_limit_exceeded"]
    lane = _lane(database, api)
    lane.plan()
    said = _run(lane, 20)
    assert sum("too much enqueued" in line for line in said) == 2
    _worker(embed, api)
    assert _completed(database) == 3
    assert api.stats.requests == 0
    _add_more = [f"s{n}" for n in range(2)]
    with database.transaction() as connection:
        for name in _add_more:
            add_call(connection, name, talk(name, 12))
    batches.fails = ["invalid_json_line"]
    lane.plan()
    assert any("workers embed its texts" in line for line in _run(lane, 5))
    _worker(embed, api)
    assert _completed(database) == 5
    assert api.stats.sent_twice == []
    _is_clean(database, batches)


def test_a_batch_that_is_refused_at_once_leaves_its_texts_to_the_workers(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 3)
    batches.refuses_creation = True
    lane = _lane(database, api)
    lane.plan()
    (said,) = _run(lane, 3)
    assert "workers embed its texts" in said
    _worker(embed, api)
    assert _completed(database) == 3
    _is_clean(database, batches)


def test_a_deleted_call_leaves_nothing_waiting(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 1)
    lane = _lane(database, api)
    lane.plan()
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_transcripts")
        connection.execute("DELETE FROM fathom_calls")
    _run(lane)
    assert batches.created == 0
    _worker(embed, api)
    assert rows(database, "SELECT count(*) FROM embedding_queue") == [(0,)]
    _is_clean(database, batches)


def test_a_batch_holds_no_more_than_its_limits(
    database: Database, api: LoopbackAPI, batches: LoopbackBatches
) -> None:
    _add(database, 10, turns=30)
    lane = _lane(database, api, limits=BatchLimits(inputs=40))
    while lane.plan():
        pass
    held = rows(database, "SELECT inputs FROM embedding_batches")
    assert len(held) > 1
    assert all(inputs <= 40 for (inputs,) in held)


def test_another_model_is_filled_by_a_batch_beside_the_live_one(
    database: Database, api: LoopbackAPI, embed: Embed, batches: LoopbackBatches
) -> None:
    _add(database, 10)
    embed()
    paid = sum(api.stats.inputs.values())
    new = embedder_of(
        api, model="text-embedding-3-large", dimensions=16, price_per_million_tokens=PRICE
    )
    lane = BatchLane(database, new, CHUNKING, times=NOW)
    assert "10 recordings" in (lane.plan_model() or "")
    assert lane.plan_model() is None
    assert lane.open == 1
    _run(lane)
    assert lane.open == 0
    assert sum(api.stats.inputs.values()) == 2 * paid
    requests = api.stats.requests
    assert switch_model(database, new, InsertBatch(50)) == 0
    assert api.stats.requests == requests
    assert rows(database, "SELECT model FROM embedding_models WHERE is_live") == [(new.model,)]
    _is_clean(database, batches)


def test_a_server_without_batches_says_so(database: Database, api: LoopbackAPI) -> None:
    _add(database, 1)
    with pytest.raises(ConfigurationError, match="no batch API"):
        _lane(database, api).plan()
    assert rows(database, "SELECT count(*) FROM embedding_batches") == [(0,)]


def test_a_small_account_takes_the_batch_lane_by_itself_unless_its_server_has_none(
    database: Database, database_url: str, api: LoopbackAPI
) -> None:
    def is_worth(from_tokens: int | None = None) -> bool:
        with database.transaction(snapshot=True) as connection:
            return is_worth_a_batch(connection, from_tokens)

    api.quota = Quota(tokens=1_000, minute=1.0)
    _add(database, 1)
    with Database(database_url) as other:
        embedder = embedder_of(api)
        claims = Claims(other, "run", timedelta(minutes=5))
        run = EmbeddingRun(other, embedder, CHUNKING, claims)
        list(Session(other, embedder, claims, run).due())  # the server tells its limit
    assert rows(database, "SELECT tokens_per_minute FROM embedding_accounts") == [(1_000,)]
    _add_long(database, 1_000 * MINUTES_OF_A_BATCH * 4 - 1_000)
    assert not is_worth()
    _add_long(database, 2_000)
    assert is_worth()
    assert not is_worth(0)
    with pytest.raises(ConfigurationError):
        _lane(database, api).plan()
    assert not is_worth()
    assert not is_worth(1)
    api.batches = LoopbackBatches()
    _lane(database, api)._require_api()  # a newer server
    assert is_worth()


def test_a_process_that_stood_still_before_its_upload_sends_no_second_batch(
    database: Database, api: LoopbackAPI, batches: LoopbackBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(database, 3)
    frozen, awake = _lane(database, api), _lane(database, api)
    frozen.plan()
    upload = type(frozen)._upload

    def stand_still(lane: BatchLane, batch: Any) -> str | None:
        if lane is frozen:
            with database.transaction() as connection:  # for longer than the batch is its own
                connection.execute("UPDATE embedding_batches SET not_before = now()")
            assert any("sent" in said for said in awake.advance())
        return upload(lane, batch)

    monkeypatch.setattr(type(frozen), "_upload", stand_still)
    with pytest.raises(TakenForDeadError):
        list(frozen.advance())
    assert batches.created == 1


def _add_long(database: Database, characters: int) -> None:
    with database.transaction() as connection:
        (number,) = rows(database, "SELECT count(*) FROM fathom_calls")
        add_call(connection, f"long{number[0]}", ["word " * (characters // 5)])


def test_a_batch_keeps_to_the_budget(
    database: Database, api: LoopbackAPI, batches: LoopbackBatches
) -> None:
    _add(database, 5)
    with pytest.raises(BudgetSpentError):
        _lane(database, api, spending=Spending(database, 10)).plan()
    assert rows(database, "SELECT count(*) FROM embedding_batches") == [(0,)]


class _Mortal(Database):
    """A database whose process is killed at its n-th transaction, before or after the commit."""

    def __init__(self, url: str, dies_at: int, *, after: bool) -> None:
        super().__init__(url)
        self._left = dies_at
        self._after = after

    def retrying(self, work: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().retrying(work, **options)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def mortal(database_url: str, api_url: str, dies_at: int, after: bool) -> None:
    """Plans and advances batches in a process that does not live long."""
    embedder = OpenAIEmbedder(
        api_key="k", base_url=api_url, dimensions=DIMENSIONS, price_per_million_tokens=PRICE
    )
    with _Mortal(database_url, dies_at, after=after) as database:
        lane = BatchLane(database, embedder, CHUNKING, times=NOW)
        lane.plan()
        _run(lane, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_killed_between_any_two_steps_nothing_is_paid_twice_lost_or_forgotten(  # noqa: PLR0917
    database: Database,
    database_url: str,
    api: LoopbackAPI,
    embed: Embed,
    batches: LoopbackBatches,
    seed: int,
) -> None:
    chance = random.Random(seed)
    _add(database, 4)
    batches.steps = ("validating", "in_progress", "completed")
    if chance.random() < 0.5:
        batches.expires = lambda name: name[0] in "012"
    for _ in range(2):
        arguments = (database_url, api.base_url, chance.randint(1, 25), chance.random() < 0.5)
        process = PROCESSES.Process(target=mortal, args=arguments)
        process.start()
        process.join(timeout=60)
        assert process.exitcode in {0, -signal.SIGKILL}
    lane = _lane(database, api)
    lane.plan()
    _run(lane)
    _worker(embed, api)
    assert _completed(database) == 4
    assert api.stats.sent_twice == []
    totals = rows(database, "SELECT coalesce(sum(tokens), 0) FROM embedding_attempts")
    assert totals == [(batches.tokens + api.stats.tokens,)]
    _is_clean(database, batches)
