"""How much of a small account's quota is used, and how many requests are refused on the way.

Loopback servers with token buckets, whose minute is shorter than a real one. What is allowed is
what the bucket held at the beginning and what came in until the last answer.
"""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from benchmarks.measuring import ROOT, Figure, Installation, installation
from benchmarks.throughput import empty
from embedding_assets_tests.loopback_api import LoopbackAPI, Quota

RECORDINGS = 60  # 350,000 tokens
DIMENSIONS = 64
LEAST = 0.9


@dataclass(frozen=True)
class Account:
    """What one account may send, and who sends."""

    name: str
    quota: Quota
    workers: int = 1
    later: Quota | None = None  # from the half of the recordings on


def accounts() -> list[Account]:
    """The accounts to try."""
    return [
        Account("40,000 tokens", Quota(tokens=40_000, minute=2)),
        Account("250,000 tokens, 750 requests", Quota(250_000, 750, minute=15)),
        Account("10,000 tokens, 3 requests, no headers", Quota(10_000, 3, 1, "nothing")),
        Account("40,000 tokens, no headers", Quota(tokens=40_000, minute=2, tells="nothing")),
        Account(
            "40,000 tokens, then 80,000",
            Quota(tokens=40_000, minute=2),
            later=Quota(tokens=80_000, minute=2),
        ),
        Account("40,000 tokens, three workers", Quota(tokens=40_000, minute=2), workers=3),
        Account(
            "40,000 tokens, three workers, no headers",
            Quota(tokens=40_000, minute=2, tells="nothing"),
            workers=3,
        ),
    ]


def measure() -> list[Figure]:
    """All figures of this module."""
    figures = []
    with installation() as there:
        there.load(RECORDINGS)
        for account in accounts():
            empty(there)
            with LoopbackAPI(dimensions=DIMENSIONS) as api:
                figures += _drain(there, api, account)
    return figures


def _drain(there: Installation, api: LoopbackAPI, account: Account) -> list[Figure]:
    api.quota = account.quota
    there.environment.update(
        EMBEDDING_PROVIDER="openai",
        OPENAI_API_KEY="benchmark",
        OPENAI_BASE_URL=api.base_url,
        EMBEDDING_DIMENSIONS=str(DIMENSIONS),
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            env=there.environment,
            cwd=ROOT,
        )
        for _ in range(account.workers)
    ]
    allowed = _Allowed(api, account)
    watcher = threading.Thread(target=allowed.watch, args=(there, workers))
    watcher.start()
    for worker in workers:
        worker.wait()
    watcher.join()
    seconds = api.stats.answered_at[-1] - api.stats.answered_at[0]
    share = api.stats.tokens / allowed.at(seconds)
    with there.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE status = 'completed'),"
            " (SELECT count(*) FROM embedding_attempts WHERE outcome = 'failed')"
            " FROM embedding_queue"
        ).fetchone()
    assert row == (RECORDINGS, 0), row
    return [
        Figure(
            f"{account.name}: tokens sent",
            api.stats.tokens,
            "tokens",
            share,
            "allowed",
            aim=f">= {LEAST}",
            reached=share >= LEAST,
            more_is_better=True,
            note=f"in {seconds:.0f} s",
        ),
        Figure(
            f"{account.name}: refused requests",
            api.stats.refused,
            "requests",
            api.stats.refused / api.stats.requests,
            "all",
        ),
    ]


class _Allowed:
    """How many tokens the account may send until a moment, by the limit that binds."""

    def __init__(self, api: LoopbackAPI, account: Account) -> None:
        self._api = api
        self._account = account
        self._changed_after: float | None = None

    def watch(self, there: Installation, workers: list[subprocess.Popen[bytes]]) -> None:
        """Changes the quota when half of the recordings are done, if it is to change."""
        while self._account.later is not None and any(w.poll() is None for w in workers):
            with there.connect() as connection:
                row = connection.execute(
                    "SELECT count(*) FROM embedding_queue WHERE status = 'completed'"
                ).fetchone()
            if row is not None and row[0] >= RECORDINGS / 2:
                self._changed_after = time.monotonic() - self._api.stats.answered_at[0]
                self._api.quota = self._account.later
                return
            time.sleep(0.2)

    def at(self, seconds: float) -> float:
        """Tokens after so many seconds from the beginning."""
        first, later = self._account.quota, self._account.later
        assert first.tokens is not None
        if later is None or later.tokens is None or self._changed_after is None:
            return first.tokens * (1 + seconds / first.minute)
        after = seconds - self._changed_after
        return first.tokens * (1 + self._changed_after / first.minute) + later.tokens * (
            1 + after / later.minute
        )
