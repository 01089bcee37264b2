"""Workers, and a database server whose clock is set forwards and back while they run."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

import pytest

from embedding_assets.server.account import Account
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.checkout import short_folder
from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import look, wait_until
from embedding_assets_tests.faults.scene import Scene, corpus_server
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.machine import need

JUMPS = {"forwards": ("+1h",), "back": ("-1h",), "forwards and back": ("+1h", "-1h", "+2d")}
CLOCK = "clock"  # a file beside the server's home


@pytest.fixture(scope="module")
def odd_server() -> Iterator[EmbeddedPostgres]:
    """A server whose clock a test sets."""
    library = need("libfaketime")
    with short_folder("clock") as folder, pytest.MonkeyPatch.context() as patch:
        clock = folder / CLOCK
        clock.write_text("+0")
        clock.chmod(0o644)
        library_of_clock = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        settings = [f"{name}={value}" for name, value in library_of_clock.items()]
        run = Account.run  # which lets nothing of our environment through

        def run_with_clock(account: Account, command: Sequence[str], **options: Any) -> Any:
            return run(account, ["/usr/bin/env", *settings, *command], **options)

        patch.setattr(Account, "run", run_with_clock)
        with corpus_server(folder) as server:
            yield server


@pytest.fixture
def odd_scene(
    odd_server: EmbeddedPostgres, api: LoopbackAPI, chance: random.Random
) -> Iterator[Scene]:
    with Scene.on(odd_server, "published", api, chance) as scene:
        yield scene


def _set(scene: Scene, offset: str) -> None:
    (scene.server.home.parent / CLOCK).write_text(offset)
    now = look(scene.database, "SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
    days, hours = offset.endswith("d"), int(offset[:-1]) if offset != "+0" else 0
    assert abs(now - time.time() - hours * (86_400 if days else 3_600)) < 60


@pytest.mark.timeout(300)
@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", JUMPS)
def test_a_server_whose_clock_jumps_loses_nothing_and_shows_no_part(
    odd_scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    odd_scene.api.latency = 0.2
    with ExitStack() as stack:
        first = stack.enter_context(odd_scene.work(LEASE_SECONDS="30"))
        wait_until(lambda: odd_scene.api.stats.requests)
        for offset in JUMPS[name]:
            time.sleep(chance.uniform(0, 0.6))
            _set(odd_scene, offset)
            stack.enter_context(odd_scene.work(LEASE_SECONDS="30"))  # takes the first for dead
        first.join(timeout=90)
        _set(odd_scene, "+0")
    odd_scene.api.latency = 0.0
    # What is paid again was asked for by two runs, of which one took the other for dead.
    asked = odd_scene.api.stats.asked.values()
    by_two = {text for text, runs in Counter(chain.from_iterable(asked)).items() if runs > 1}
    assert set(odd_scene.paid_again()) <= by_two
    charged = odd_scene.charged()
    assert {kind for _, kind, _ in charged.values()} <= {"crashed"}
    line = row("engine, server's clock", name)
    odd_scene.end(runs=5)
    line.moment("some texts paid again" if odd_scene.paid_again() else "nothing paid again")
    if charged:
        line.saw("an attempt charged to what a living run held alone")
