"""Ticks that meet a fault of the world are skipped and say why; the next ones go on."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import Layer, Tick

SENSORS = ("discover_recordings", "report_dead_runs")
SCHEDULES = ("embed_pending", "recover_dead_letters", "maintain_vector_index", "embed_in_batches")
AWAY = "postgresql://someone:hunter2@127.0.0.1:1/calls"


@pytest.fixture
def any_tick(layer: Layer, tick: Tick, scheduled: Tick) -> Tick:
    """Evaluates a sensor or a schedule, where each has something to look at."""
    layer.add_calls(a=talk("a", 3))
    layer.started_run(hours_ago=1)
    return lambda name: tick(name) if name in SENSORS else scheduled(name)


@pytest.mark.parametrize("name", [*SENSORS, *SCHEDULES])
def test_a_tick_without_the_database_is_skipped_and_says_why(
    layer: Layer, any_tick: Tick, name: str
) -> None:
    layer.environment.setenv("DATABASE_URL", AWAY)
    data = any_tick(name)
    assert not data.run_requests
    assert data.skip_message.startswith("not looked: cannot connect to Postgres")
    assert "hunter2" not in data.skip_message


@pytest.fixture
def locked(database_url: str, any_tick: Tick, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The recorder's table, locked by the process of this number."""
    # What the ticks changed cannot be looked at meanwhile.
    monkeypatch.setattr("embedding_assets_tests.defs.conftest.contents", lambda _: None)
    with psycopg.connect(database_url) as somebody:
        somebody.execute("LOCK TABLE fathom_calls")
        yield somebody.info.backend_pid


@pytest.mark.parametrize("name", ["discover_recordings", "embed_pending"])
def test_a_tick_that_finds_the_recorders_table_locked_says_by_whom(
    any_tick: Tick, locked: int, name: str
) -> None:
    data: Any = any_tick(name)
    assert not data.run_requests
    assert f"fathom_calls is locked by process {locked}" in data.skip_message
