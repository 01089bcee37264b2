"""Figures for Prometheus: its own library reads them, and they follow what happens."""

import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import Embed, add_call, embedder_of, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI
from embedding_assets_tests.web.conftest import CALLS, Serving, add_calls

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(place: str) -> Samples:
    """All figures by name and labels."""
    answer = httpx.get(f"{place}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"embedding_assets_{name}", frozenset(labels.items())]


def searches(place: str, mode: str) -> tuple[float, float]:
    """How many searches were answered by this mode, and for how long they ran."""
    found = samples(place)
    key = frozenset({("mode", mode)})
    name = "embedding_assets_search_seconds"
    return found.get((f"{name}_count", key), 0.0), found.get((f"{name}_sum", key), 0.0)


def errors(place: str, kind: str) -> float:
    key = "embedding_assets_search_errors_total", frozenset({("kind", kind)})
    return samples(place).get(key, 0.0)


@pytest.fixture
def busy(database: Database, database_url: str, api: LoopbackAPI, embed: Embed) -> Iterator[str]:
    """A server on a database in which something was done, failed, and waits."""
    add_calls(database, api, CALLS)
    with database.transaction() as connection:
        for name in ("fails", "waits", "dead"):
            add_call(connection, name, talk(name, 2))
    api.faults.append(Fault(429, times=1))
    priced = embedder_of(api, price_per_million_tokens=100.0)
    embed("dead", embedder=priced)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', error_kind = 'invalid_input',"
            " last_error = 'refused' WHERE recording_id = 'fails'"
        )
        connection.execute(
            "UPDATE embedding_queue SET status = 'pending', enqueued_at = now() - interval '1 hour'"
            " WHERE recording_id = 'waits'"
        )
        connection.execute(
            "INSERT INTO embedding_accounts (model, tokens_per_minute) VALUES (%s, 40000)",
            [priced.model],
        )
    with Serving(database_url, api)() as place:
        yield place


def test_the_figures_tell_of_queue_attempts_tokens_cost_and_pace(busy: str) -> None:
    found = samples(busy)
    states = {"pending": 1, "processing": 0, "completed": 4, "failed": 0, "dead_letter": 1}
    for state, count in states.items():
        assert value(found, "recordings", state=state) == count, state
    assert value(found, "dead_letters") == 1
    assert value(found, "due") == 1
    assert value(found, "stale_claims") == value(found, "broken_recordings") == 0
    assert value(found, "chunks") > 4
    assert 3500 < value(found, "oldest_due_seconds") < 3700
    assert value(found, "last_published_timestamp_seconds") > 1.7e9
    assert value(found, "attempts_last_hour", outcome="published", kind="") == 4
    assert value(found, "embedded_last_hour") >= 4
    assert value(found, "tokens_last_hour") > 50
    assert value(found, "refusals_last_hour") == 1
    by_model = {
        name: sum(v for (each, _), v in found.items() if each == f"embedding_assets_{name}")
        for name in ("tokens_today", "requests_today", "cost_today_dollars",
                     "pace_tokens_per_minute")
    }  # fmt: skip
    assert by_model["tokens_today"] == value(found, "tokens_last_hour")
    assert by_model["requests_today"] >= 3
    assert by_model["cost_today_dollars"] > 0
    assert by_model["pace_tokens_per_minute"] == 40_000


def test_nothing_said_and_no_title_is_in_the_figures(busy: str) -> None:
    text = httpx.get(f"{busy}/metrics").text
    for private in ("dairy", "walrus", "Ann", "example.org", "zoom-price", "sentence"):
        assert private not in text


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_a_search_adds_to_the_histogram(shared: str, mode: str) -> None:
    count, seconds = searches(shared, mode)
    for question in ("truck", "walrus", "import"):
        httpx.get(f"{shared}/api/search", params={"q": question, "mode": mode})
    more, longer = searches(shared, mode)
    assert more == count + 3
    assert seconds < longer < seconds + 10


def test_a_search_by_words_for_want_of_the_model_counts_as_such(
    shared: str, module_api: LoopbackAPI
) -> None:
    by_words, _ = searches(shared, "keyword")
    module_api.faults.append(Fault(status=503))
    try:
        answer = httpx.get(f"{shared}/api/search", params={"q": "a new question"}, timeout=30)
    finally:
        module_api.faults.clear()
    assert answer.json()["notice"]
    assert searches(shared, "keyword")[0] == by_words + 1


def test_a_search_that_fails_adds_to_the_errors_and_to_no_histogram(
    shared: str, module_api: LoopbackAPI
) -> None:
    before = errors(shared, "transient"), searches(shared, "semantic")
    module_api.faults.append(Fault(status=503))
    try:
        params = {"q": "another new question", "mode": "semantic"}
        answer = httpx.get(f"{shared}/api/search", params=params, timeout=30)
    finally:
        module_api.faults.clear()
    assert answer.status_code == 503
    assert errors(shared, "transient") == before[0] + 1
    assert searches(shared, "semantic") == before[1]


def test_an_empty_system_has_figures_too(database_url: str, api: LoopbackAPI) -> None:
    with Serving(database_url, api)() as place:
        found = samples(place)
    assert value(found, "oldest_due_seconds") == 0
    assert value(found, "chunks") == 0
    assert value(found, "recordings", state="pending") == 0


def test_what_happens_is_seen_once_the_last_count_is_old(
    serving: Serving, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_assets.web.metrics.FRESH_SECONDS", 1.0)
    with serving() as place:
        assert value(samples(place), "due") == 0
        with database.transaction() as connection:
            add_call(connection, "new", talk("new", 2))
        time.sleep(1.1)
        assert value(samples(place), "due") == 1
