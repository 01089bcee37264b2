"""The decisions that need neither Dagster nor a database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.defs.launching import relaunch_requests, worker_request
from embedding_assets.defs.partitions import partition_changes
from embedding_assets.defs.workers import (
    RECORDINGS_A_WORKER,
    SINGLE_RUNS,
    Worker,
    living,
    relaunch,
    workers_wanted,
)
from embedding_assets.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LEASE = timedelta(minutes=5)

ids = st.sets(st.sampled_from([f"r{n}" for n in range(12)]))
counts = st.integers(min_value=0, max_value=10_000)


@given(there=ids, keys=ids, held=ids)
def test_after_the_changes_the_partitions_are_the_recordings_and_what_a_run_holds(
    there: set[str], keys: set[str], held: set[str]
) -> None:
    changes = partition_changes(there, keys, held)
    assert (keys | set(changes.added)) - set(changes.deleted) == there | (keys & held)
    assert set(changes.added).isdisjoint(keys)
    assert set(changes.deleted) <= keys
    assert changes == (sorted(changes.added), sorted(changes.deleted))


@given(due=counts, alive=st.integers(0, 200), most=st.integers(1, 100))
def test_workers_are_started_only_for_work_and_never_too_many(
    due: int, alive: int, most: int
) -> None:
    wanted = workers_wanted(due, alive, most)
    assert wanted >= 0
    assert alive + wanted <= max(alive, most)
    assert due or not wanted
    assert wanted or alive or not due
    assert wanted <= -(-due // RECORDINGS_A_WORKER)


@pytest.mark.parametrize(
    ("due", "alive", "most", "wanted"),
    [
        (1, 0, 2, 1),
        (100, 0, 2, 1),
        (101, 0, 2, 2),
        (7_000, 0, 2, 2),
        (7_000, 1, 2, 1),
        (1, 1, 2, 0),
    ],
)
def test_one_worker_is_started_for_every_hundred_recordings(
    due: int, alive: int, most: int, wanted: int
) -> None:
    assert workers_wanted(due, alive, most) == wanted


@pytest.mark.parametrize(
    ("age", "holds", "lives"),
    [
        (None, False, True),  # queued
        (timedelta(minutes=4), False, True),  # between two claims, or not yet at the first
        (timedelta(minutes=6), False, False),  # killed, or it would hold something by now
        (timedelta(hours=3), True, True),
    ],
)
def test_a_worker_lives_while_it_is_young_or_holds_a_lease(
    age: timedelta | None, holds: bool, lives: bool
) -> None:
    worker = Worker("w", None if age is None else NOW - age)
    alive = living([worker], {"w"} if holds else {"another"}, NOW, LEASE)
    assert alive == (["w"] if lives else [])


@given(undone=st.lists(st.text(min_size=1), unique=True, max_size=40), data=st.data())
def test_everything_undone_is_launched_once_by_one_of_the_two_ways(
    undone: list[str], data: st.DataObject
) -> None:
    keys = data.draw(st.sets(st.sampled_from(undone))) if undone else set()
    plan = relaunch(undone, keys)
    assert sorted(plan.partitions + plan.worker) == sorted(undone)
    assert set(plan.partitions) == (keys if len(undone) <= SINGLE_RUNS else set())


@given(undone=st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=40))
def test_relaunches_have_keys_of_their_own_that_never_change(undone: list[str]) -> None:
    requests = relaunch_requests("run", *relaunch(undone, undone))
    keys = [request.run_key for request in requests]
    assert None not in keys
    assert len(set(keys)) == len(keys) == (1 if len(undone) > SINGLE_RUNS else len(undone))
    assert keys == [
        request.run_key for request in relaunch_requests("run", *relaunch(undone, undone))
    ]
    other = [request.run_key for request in relaunch_requests("other", *relaunch(undone, undone))]
    assert set(keys).isdisjoint(other)


def test_a_requested_worker_stops_after_the_time_that_the_settings_give(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("WORKER_SECONDS", "120")
    request = worker_request(Settings())
    assert request.run_config == {
        "ops": {"embed_due_recordings": {"config": {"time_budget_seconds": 120}}}
    }
