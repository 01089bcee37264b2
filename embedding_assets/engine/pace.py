"""The pace of requests to one server: when the next may leave, and how large it may be.

Both a token bucket and AIMD. Limits that the server tells in its headers fill two buckets, one of
requests and one of tokens, and what it says remains counts what other processes have sent, too. A
server that tells nothing is known by its refusals alone: each makes the wait between requests
longer by a factor, each answer makes it shorter (multiplicative increase and decrease, as in
congestion control: Chiu and Jain 1989). Either way, processes share a limit without knowing of each
other.

Sizes are in planned tokens, an upper bound of what the server counts; the share of them that it
really counts is learned from its answers.
"""

import email.utils
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from embedding_assets.engine.errors import RequestTooLargeError, TransientError

MINUTE = 60.0
FIRST_REQUEST = 32_768  # planned tokens; doubled with each answer of a server that tells no limits
PARTS_OF_A_MINUTE = 8  # requests of this share of a known limit let several processes take turns
MARGIN = 0.9  # of a limit: the server's estimate of a request may be larger than its count
LONGEST_NUMBER = 16  # characters of a header that are read as a number
LONGEST_ASKED = 30 * 86_400.0  # seconds; a server that asks for more is not believed
ALWAYS_TOO_LARGE = 12  # refusals in a row after which a request's size is the reason
# How the wait for a token changes where no limit is told: after a refusal, after several in a row,
# after an answer, and after an answer before the right wait was ever met.
LATER, MUCH_LATER, SOONER, MUCH_SOONER = 1.3, 2.0, 0.95, 0.85
# How the share of the refill changes that this process takes: after an answer, after a refusal.
SHARE_MORE, SHARE_LESS, SHARE_LEAST = 0.05, 0.6, 0.2
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


@dataclass(slots=True)
class Bucket:
    """What may still be sent of one kind: `level` of `capacity`, refilled at `rate` a second."""

    capacity: float
    rate: float
    level: float
    at: float  # when the level was that

    share: float = 1.0  # of the refill that is taken for ours

    def fill(self, now: float) -> None:
        """Adds what came in since."""
        came_in = self.share * self.rate * max(0.0, now - self.at)
        self.level = min(self.capacity, self.level + came_in)
        self.at = now

    def delay(self, needed: float, now: float) -> float:
        """Seconds until so much is there."""
        self.fill(now)
        lacking = min(needed, self.capacity) - self.level
        return max(0.0, lacking / (self.share * self.rate))


@dataclass(frozen=True, slots=True)
class Told:
    """What a server's headers say of one kind of limit; None: nothing."""

    limit: float | None
    remaining: float | None
    reset: float | None  # seconds until all of the limit is there again


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the settings allow, whatever the server does; None: as much as it allows."""

    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    request_tokens: int | None = None


class Pace:
    """Lets requests leave one after the other, in the order they came; for several threads.

    Args:
        largest: planned tokens of the largest request there may be.
        ceilings: limits of the settings.
        first_wait: seconds after a refusal that names no time, doubled with each in a row.
        longest_wait: the most of these.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        largest: int,
        ceilings: Ceilings | None = None,
        *,
        first_wait: float = 0.5,
        longest_wait: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._largest = largest
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        ceilings = ceilings or Ceilings()
        self._request_ceiling = ceilings.request_tokens
        self._set = {
            kind: _full(limit, clock())
            for kind, limit in (
                ("tokens", ceilings.tokens_per_minute),
                ("requests", ceilings.requests_per_minute),
            )
            if limit is not None
        }
        self._told: dict[str, Bucket] = {}
        self._share = 1.0  # of what the server refills that this process takes
        self._size = float(min(FIRST_REQUEST, largest))  # where no limit is told
        self._accepted_size = 0  # the largest that was answered
        self._until_larger = 0  # answers to wait for before a larger one is tried
        self._answers_until_larger = 8
        self._counted_share = 1.0  # of planned tokens that the server counts
        self._in_flight = 0.0
        self._requests_in_flight = 0
        self._answers = 0
        self._refused_in_a_row = 0
        self._sent_before = 0  # requests under way that had left before the last refusal
        self._answered_at = clock()
        self._held_until = clock()
        # Where no limit is told: how long each token of a request delays the next one.
        self._seconds_a_token: float | None = None
        self._answers_in_a_row = 0
        self._is_settled = False  # whether that has been near its right value

    @property
    def largest(self) -> int:
        """Planned tokens of the largest request that may leave now."""
        with self._changed:
            return self._allowed_size()

    @property
    def told_tokens_per_minute(self) -> int | None:
        """The account's limit as the server tells it; None if it has not told one."""
        with self._changed:
            told = self._told.get("tokens")
            return None if told is None else round(told.capacity)

    @property
    def delay(self) -> float:
        """Seconds until the next request may leave, by what is known now."""
        with self._changed:
            now = self._clock()
            needed = min(self._allowed_size(), FIRST_REQUEST)
            return min(self._delay(needed if self._queue else 1, now), LONGEST_ASKED)

    def counted(self, planned: float) -> float:
        """Tokens that the server will count of so many planned ones, as far as it is known."""
        with self._changed:
            return planned * self._counted_share

    def wait_turn(self, planned: int, closed: threading.Event, *, is_one_text: bool) -> None:
        """Waits until a request of so many planned tokens may leave; then it counts as sent.

        Raises:
            RequestTooLargeError: it is larger than the server takes: send parts of it.
            TransientError: `closed` was set.
        """
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while True:
                    if closed.is_set():
                        raise TransientError("the run stopped before the server let it ask")
                    delay = 0.5
                    if self._queue[0] is ticket and not self.is_probing:
                        delay = self.try_leave(planned, is_one_text=is_one_text)
                        if delay == 0:
                            return
                    self._changed.wait(min(delay, 0.5))
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def try_leave(self, planned: int, *, is_one_text: bool, dry: bool = False) -> float:
        """Counts the request as sent and gives 0, or gives the seconds until it may leave.

        With `dry`, it is not counted.

        Raises:
            RequestTooLargeError: it is larger than the server takes: send parts of it.
        """
        with self._changed:
            if planned > self._allowed_size() and not is_one_text:
                raise RequestTooLargeError("the request is larger than the server takes")
            delay = max(0.0, self._delay(planned, self._clock()))
            if delay == 0 and not dry:
                self._leave(planned)
            return delay

    @property
    def is_probing(self) -> bool:
        """Whether the very first request is under way: others wait for what it teaches."""
        with self._changed:
            return self._answers == 0 and self._requests_in_flight > 0

    def answered(self, planned: int, tokens: int, headers: Mapping[str, str]) -> None:
        """The server answered; `tokens` as it counted them, 0 if it does not say."""
        with self._changed:
            now = self._clock()
            self._back(planned)
            if tokens:
                self._counted_share += 0.5 * (tokens / planned - self._counted_share)
                if not self._answers:
                    self._counted_share = tokens / planned
            self._answers += 1
            self._sent_before = max(0, self._sent_before - 1)
            self._refused_in_a_row = 0
            self._answered_at = now
            self._share = min(1.0, self._share + SHARE_MORE)
            self._read(headers, now)
            self._grow(planned)
            self._changed.notify_all()

    def refused(self, planned: int, headers: Mapping[str, str]) -> None:
        """The server answered that this was too much (429)."""
        with self._changed:
            now = self._clock()
            self._back(planned)
            self._read(headers, now)
            if self._sent_before > 0:  # it left before an earlier refusal could teach anything
                self._sent_before -= 1
                self._changed.notify_all()
                return
            self._sent_before = self._requests_in_flight
            self._refused_in_a_row += 1
            self._share = max(SHARE_LEAST, self._share * SHARE_LESS)
            asked = retry_after(headers)
            if "tokens" not in self._told:
                self._learn(planned)
            if asked is not None:  # not all at the same moment, where others wait, too
                self._hold(now, asked / self._share * random.uniform(1, 1.2))  # noqa: S311
            elif planned <= self._allowed_size():
                self._hold(now, self._backoff(planned))
            self._changed.notify_all()

    def failed(self, planned: int) -> None:
        """A request brought no answer, for a reason that has nothing to do with the pace."""
        with self._changed:
            self._back(planned)
            self._changed.notify_all()

    def gives_up(self, refusals: int, seconds: float) -> bool:
        """Whether the last requests, at least so many, were refused for at least so long."""
        with self._changed:
            silent = self._clock() - self._answered_at
            return self._refused_in_a_row >= refusals and silent >= seconds

    # Everything below runs under the lock.

    def _leave(self, planned: int) -> None:
        now = self._clock()
        self._in_flight += planned
        self._requests_in_flight += 1
        for buckets in (self._set, self._told):
            for kind, bucket in buckets.items():
                bucket.fill(now)
                bucket.level -= 1 if kind == "requests" else planned * self._counted_share
        if self._seconds_a_token is not None and "tokens" not in self._told:
            self._hold(now, planned * self._counted_share * self._seconds_a_token)

    def _back(self, planned: int) -> None:
        self._in_flight -= planned
        self._requests_in_flight -= 1

    def _delay(self, planned: float, now: float) -> float:
        needed = {"tokens": planned * self._counted_share, "requests": 1.0}
        delays = [self._held_until - now]
        for buckets in (self._set, self._told):
            delays += [bucket.delay(needed[kind], now) for kind, bucket in buckets.items()]
        return max(delays)

    def _allowed_size(self) -> int:
        sizes = [float(self._largest)]
        tokens = self._told.get("tokens") or self._set.get("tokens")
        requests = self._told.get("requests") or self._set.get("requests")
        if tokens is not None:
            wanted = tokens.capacity / PARTS_OF_A_MINUTE
            if requests is not None:  # fewer and larger ones where requests are what is scarce
                wanted = max(wanted, 1.5 * tokens.capacity / requests.capacity)
            sizes.append(min(wanted, MARGIN * tokens.capacity) / self._counted_share)
        if "tokens" not in self._told:
            sizes.append(self._size)
        if self._request_ceiling is not None:
            sizes.append(self._request_ceiling / self._counted_share)
        return max(1, int(min(sizes)))

    def _read(self, headers: Mapping[str, str], now: float) -> None:
        """Believes what the headers say; requests under way may not be in it yet."""
        under_way = {
            "tokens": self._in_flight * self._counted_share,
            "requests": self._requests_in_flight,
        }
        for kind, pending in under_way.items():
            told = told_of(kind, headers)
            known = self._told.get(kind)
            capacity = told.limit or (known.capacity if known else None)
            if capacity is None or told.remaining is None:
                continue
            rate = known.rate if known and known.capacity == capacity else capacity / MINUTE
            used = capacity - told.remaining
            if told.reset and used >= 0.02 * capacity:
                rate = used / told.reset
            self._told[kind] = Bucket(capacity, rate, told.remaining - pending, now, self._share)

    def _grow(self, planned: int) -> None:
        """After an answer, requests may be larger, and leave sooner."""
        self._accepted_size = max(self._accepted_size, planned)
        self._until_larger -= 1
        if planned >= self._size / 2 and self._until_larger <= 0:
            self._size = min(2 * self._size, self._largest)
        self._answers_in_a_row += 1
        if self._seconds_a_token is not None:
            self._seconds_a_token *= SOONER if self._is_settled else MUCH_SOONER

    def _learn(self, planned: int) -> None:
        """A refusal of a server that tells no limit: the request was too large, or too soon."""
        if planned > self._accepted_size or self._refused_in_a_row >= ALWAYS_TOO_LARGE:
            if self._refused_in_a_row >= ALWAYS_TOO_LARGE:
                self._accepted_size //= 2
            if planned <= self._size:
                self._size = max(self._accepted_size, planned / 2)
            self._until_larger = self._answers_until_larger
            self._answers_until_larger = min(2 * self._answers_until_larger, 16)
        self._is_settled = self._is_settled or self._answers_in_a_row >= 3
        self._answers_in_a_row = 0
        counted = planned * self._counted_share
        if self._seconds_a_token is None:
            self._seconds_a_token = self._first_wait / counted
        else:
            is_first = self._is_settled and self._refused_in_a_row == 1
            self._seconds_a_token *= LATER if is_first else MUCH_LATER
        # At most twice as long as it has been silent, so that a few refusals do not last for ever.
        silent = max(self._first_wait, 2 * (self._clock() - self._answered_at))
        most = min(self._longest_wait, silent) / counted
        self._seconds_a_token = min(self._seconds_a_token, most)

    def _backoff(self, planned: int) -> float:
        """Seconds to wait after a refusal that names none."""
        if self._seconds_a_token is not None:
            wait = planned * self._counted_share * self._seconds_a_token
        else:
            wait = self._first_wait * 2.0 ** (self._refused_in_a_row - 1)
        return min(wait, self._longest_wait) * random.uniform(0.5, 1.0)  # noqa: S311

    def _hold(self, now: float, seconds: float) -> None:
        self._held_until = max(self._held_until, now + seconds)


def _full(limit: int, now: float) -> Bucket:
    return Bucket(limit, limit / MINUTE, limit, now)


def told_of(kind: str, headers: Mapping[str, str]) -> Told:
    """What `x-ratelimit-*` headers say of `requests` or `tokens`."""

    def number(name: str) -> float | None:
        value = headers.get(f"x-ratelimit-{name}-{kind}", "")
        is_number = value.replace(".", "", 1).isdigit() and len(value) <= LONGEST_NUMBER
        return float(value) if is_number else None

    return Told(
        number("limit"), number("remaining"), duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    )


def duration(text: str) -> float | None:
    """Seconds of a duration such as `20ms`, `6m0s` or `1.5`; None for anything else."""
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    if text.replace(".", "", 1).isdigit():
        return min(float(text), LONGEST_ASKED)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return min(sum(float(number) * _UNIT[unit] for number, unit in parts), LONGEST_ASKED)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: milliseconds, a number, or a date; None: nothing."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "")
    try:
        if milliseconds is not None:
            seconds = float(milliseconds) / 1000
        elif value.replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            at = email.utils.parsedate_to_datetime(value)
            seconds = (at - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_ASKED) if math.isfinite(seconds) else None
