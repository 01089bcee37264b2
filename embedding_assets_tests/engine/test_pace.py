"""The pace, in simulated time: a server with token buckets, and processes that share its quota."""

import heapq
import itertools
import random
import threading
from dataclasses import dataclass, field

import pytest

from embedding_assets.engine.errors import RequestTooLargeError, TransientError
from embedding_assets.engine.pace import Ceilings, Pace, duration, retry_after, told_of
from embedding_assets_tests.loopback_api import Quota

TEXT = 1_200  # planned tokens, of which the server counts a third
LATENCY = 0.3
CONCURRENCY = 4
LARGEST = 300_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("1s", 1), ("0s", 0), ("7", 7),
        ("2d", 172_800), ("", None), ("soon", None), ("6m0", None), ("-1s", None),
    ],
)  # fmt: skip
def test_a_reset_is_a_duration_and_nonsense_is_nothing(text: str, seconds: float | None) -> None:
    assert duration(text) == (pytest.approx(seconds) if seconds is not None else None)


def test_a_server_may_ask_for_a_wait_in_three_ways() -> None:
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
    assert retry_after({"retry-after-ms": "inf"}) is None
    assert retry_after({"retry-after-ms": "nan"}) is None
    assert retry_after({"retry-after-ms": "-5"}) == 0
    assert retry_after({"retry-after": "9" * 400}) is None


def test_what_is_no_number_is_not_told() -> None:
    for nonsense in ("many", "9" * 400, "-1", "1e9", "nan"):
        headers = {
            f"x-ratelimit-{name}-tokens": nonsense for name in ("limit", "remaining", "reset")
        }
        told = told_of("tokens", headers)
        assert (told.limit, told.remaining, told.reset) == (None, None, None)


@dataclass
class World:
    """Some processes that drain their texts through one server; time passes when nobody can act."""

    quota: Quota
    workers: int = 1
    now: float = 0.0
    refused: int = 0
    tokens: float = 0.0
    last: float = 0.0
    left: list[float] = field(default_factory=list)  # tokens of each that are in no request yet
    waiting: list[list[int]] = field(default_factory=list)  # requests of each that did not leave

    def drain(self, tokens: float, change: tuple[float, Quota] | None = None) -> float:
        """Sends so many tokens; gives the seconds until the last answer."""
        random.seed(1)
        paces = [Pace(LARGEST, clock=lambda: self.now) for _ in range(self.workers)]
        self.left = [tokens / self.workers] * self.workers
        self.waiting = [[] for _ in paces]
        under_way = [0] * self.workers
        events: list[tuple[float, int, int, int, tuple[bool, dict[str, str]] | None]] = []
        number = itertools.count()
        while events or any(each > 0 for each in self.left) or any(self.waiting):
            for n, pace in enumerate(paces):
                while under_way[n] + len(self.waiting[n]) < CONCURRENCY and self.left[n] > 0:
                    size = max(TEXT, min(pace.largest, int(3 * self.left[n]) + TEXT) // TEXT * TEXT)
                    self.waiting[n].append(size)
                    self.left[n] -= size / 3
                while self.waiting[n] and self._leaves(pace, n):
                    size = self.waiting[n].pop(0)
                    under_way[n] += 1
                    heapq.heappush(events, (self.now + LATENCY / 2, next(number), n, size, None))
            self._pass_time(paces, events[0][0] if events else None)
            if change is not None and self.now > change[0]:
                self.quota = change[1]
            while events and events[0][0] <= self.now:
                _, _, n, size, answer = heapq.heappop(events)
                if answer is None:
                    answer = self._take(size // 3)
                    back = (self.now + LATENCY / 2, next(number), n, size, answer)
                    heapq.heappush(events, back)
                    continue
                under_way[n] -= 1
                if answer[0]:
                    self.tokens += size // 3
                    self.last = self.now
                    paces[n].answered(size, size // 3, answer[1])
                else:
                    self.refused += 1
                    self.waiting[n].insert(0, size)
                    paces[n].refused(size, answer[1])
        return self.last

    def _leaves(self, pace: Pace, worker: int) -> bool:
        size = self.waiting[worker][0]
        if size > pace.largest and size > TEXT:
            part = max(TEXT, pace.largest // TEXT * TEXT)
            self.waiting[worker][:1] = [part]
            self.left[worker] += (size - part) / 3  # to be packed anew
            return self._leaves(pace, worker)
        if pace.is_probing:
            return False
        return pace.try_leave(size, is_one_text=size <= TEXT) == 0

    def _pass_time(self, paces: list[Pace], event: float | None) -> None:
        soonest = [event] if event is not None else []
        for pace, sizes in zip(paces, self.waiting, strict=True):
            if sizes and not pace.is_probing:
                wait = pace.try_leave(sizes[0], is_one_text=True, dry=True)
                soonest.append(self.now + max(wait, 0.01))
        self.now = max(self.now, min(soonest))
        assert self.now < 50_000, "the processes starve"

    def _take(self, tokens: int) -> tuple[bool, dict[str, str]]:
        return self.quota.take(tokens, now=self.now)

    def used(self, seconds: float) -> float:
        """The share of what the bucket gave in this time that was used."""
        assert self.quota.tokens is not None
        return self.tokens / (self.quota.tokens * (1 + seconds / self.quota.minute))


QUOTAS = {
    "40,000 tokens": (Quota(tokens=40_000), 400_000),
    "a million tokens, 3,000 requests": (Quota(1_000_000, 3_000), 10_000_000),
    "3 requests, 10,000 tokens": (Quota(10_000, 3), 200_000),
    "3 requests, 10,000 tokens, nothing told": (Quota(10_000, 3, tells="nothing"), 200_000),
    "40,000 tokens, nothing told": (Quota(tokens=40_000, tells="nothing"), 400_000),
    "40,000 tokens, the rest told": (Quota(tokens=40_000, tells="remaining"), 400_000),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_nine_tenths_of_a_quota_are_used(name: str) -> None:
    quota, tokens = QUOTAS[name]
    world = World(quota)
    assert world.used(world.drain(tokens)) >= 0.9
    if quota.tells == "all":
        assert world.refused <= 2


@pytest.mark.parametrize("tells", ["all", "nothing"])
def test_three_processes_share_a_quota_without_knowing_of_each_other(tells: str) -> None:
    world = World(Quota(tokens=40_000, tells=tells), workers=3)
    least = 0.9 if tells == "all" else 0.75
    assert world.used(world.drain(400_000)) >= least


def test_a_limit_that_is_doubled_or_halved_is_followed() -> None:
    for before, after in ((40_000, 80_000), (80_000, 40_000)):
        world = World(Quota(tokens=before))
        seconds = world.drain(400_000, change=(180.0, Quota(tokens=after)))
        allowed = before * (1 + 180 / 60) + after * (1 + (seconds - 180) / 60)
        assert world.tokens / allowed >= 0.85


def _pace(**ceilings: int) -> tuple[Pace, list[float]]:
    now = [0.0]
    return Pace(LARGEST, Ceilings(**ceilings), clock=lambda: now[0]), now


def test_ceilings_hold_though_the_server_allows_more() -> None:
    pace, now = _pace(tokens_per_minute=600, requests_per_minute=2, request_tokens=300)
    assert pace.largest <= 300
    assert pace.try_leave(300, is_one_text=False) == 0
    pace.answered(300, 300, {})
    assert pace.try_leave(300, is_one_text=False) == 0
    pace.answered(300, 300, {})
    wait = pace.try_leave(300, is_one_text=False)
    assert wait == pytest.approx(30, abs=1)
    now[0] += wait
    assert pace.try_leave(300, is_one_text=False) == 0


def test_one_text_is_never_too_large_but_more_are() -> None:
    pace, _ = _pace(request_tokens=100)
    with pytest.raises(RequestTooLargeError):
        pace.try_leave(101, is_one_text=False)
    assert pace.try_leave(101, is_one_text=True) == 0


def test_the_first_request_goes_alone() -> None:
    pace, _ = _pace()
    assert pace.try_leave(10, is_one_text=False) == 0
    assert pace.is_probing
    pace.answered(10, 3, {})
    assert not pace.is_probing


def test_who_waits_goes_when_it_is_closed() -> None:
    pace, _ = _pace(requests_per_minute=1)
    pace.wait_turn(10, threading.Event(), is_one_text=True)
    pace.answered(10, 3, {})
    closed = threading.Event()
    threading.Timer(0.1, closed.set).start()
    with pytest.raises(TransientError):
        pace.wait_turn(10, closed, is_one_text=True)


def test_a_server_that_refuses_everybody_is_given_up_and_one_that_answers_some_is_not() -> None:
    pace, now = _pace()
    for _ in range(6):
        now[0] += 100
        pace.try_leave(10, is_one_text=True)
        pace.refused(10, {})
    assert pace.gives_up(6, 360)
    pace.answered(10, 3, {})
    pace.refused(10, {})
    assert not pace.gives_up(6, 360)
