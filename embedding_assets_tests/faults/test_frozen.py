"""A worker that is frozen for longer than its lease (SIGSTOP, a paused machine), and wakes up."""

import os
import random
import signal
import time
from collections import Counter
from datetime import timedelta

import psycopg
import pytest

from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import (
    STAGES,
    let_it_get_to,
    look,
    wait_for_the_leases,
    wait_until,
)
from embedding_assets_tests.faults.scene import SECRET, Scene
from embedding_assets_tests.faults.workers import ENDED

CONCURRENCY = 4  # requests that a worker has under way
PUBLISHED = "SELECT count(*) FROM embedding_attempts WHERE run_id = %s AND outcome = 'published'"
LOCKED = timedelta(seconds=60)  # for so long, at most, an edit waits for a frozen worker


def _edit_what_it_may_hold(scene: Scene) -> None:
    """The recorder edits every transcript: it may not wait for a frozen process for ever."""
    with psycopg.connect(scene.url, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = '{LOCKED.total_seconds():.0f}s'")
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'While one is frozen: ' || text"
            " WHERE position = 2"
        )
    scene.corpus.versions |= scene.corpus.current()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.moments(some=5, all=50)
def test_a_worker_that_wakes_up_publishes_nothing_and_ends_by_itself(
    scene: Scene, row: BeginRow, chance: random.Random, moment: int
) -> None:
    stage = STAGES[moment % len(STAGES)]
    scene.api.latency = 0.05
    key = f"{SECRET}-run-1"
    wait = let_it_get_to(stage, scene.database, scene.api)
    with scene.work() as process:
        assert process.pid is not None
        wait(process.is_alive)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGSTOP)
        if not process.is_alive():
            pytest.skip("it had ended")
        _edit_what_it_may_hold(scene)
        wait_for_the_leases(scene.database)
        took_over = _finish_without_it(scene)
        before = look(scene.database, PUBLISHED, ["run-1"])
        asked = Counter(scene.api.stats.asked.get(key, {}))
        requests = scene.api.stats.requests
        os.kill(process.pid, signal.SIGCONT)
        process.join(timeout=60)
        assert process.exitcode is not None, "it does not end by itself"
    assert look(scene.database, PUBLISHED, ["run-1"]) == before
    assert scene.api.stats.requests - requests <= CONCURRENCY
    # What it asked for once it was awake was on its way; all else that is paid again was, before.
    asked_awake = Counter(scene.api.stats.asked.get(key, {})) - asked
    assert set(scene.paid_again()) <= set(asked) | set(asked_awake)
    scene.end()
    line = row("engine", "SIGSTOP for longer than its lease")
    line.moment(f"{stage}: {took_over}")
    if asked_awake:
        line.saw("asked once more, awake")


def _finish_without_it(scene: Scene) -> str:
    """Other workers do all that is due while it is frozen."""
    left = "SELECT 1 FROM embedding_queue WHERE status <> 'completed' LIMIT 1"

    def is_finished() -> bool:
        if not look(scene.database, left):
            return True
        assert scene.run() == ENDED
        return not look(scene.database, left)

    wait_until(is_finished, timedelta(seconds=90))
    return "others did its work" if len(scene.said) else "it had done all"
