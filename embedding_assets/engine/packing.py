"""Packs the texts of many recordings into as few requests as the model's limits allow."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embedding_assets.engine.embedders import Embedder, RequestLimits


@dataclass(frozen=True, slots=True)
class Input:
    """One text to embed."""

    content_hash: bytes
    text: str
    planned_tokens: int


class Packer:
    """Texts that wait to be sent, in the order they came."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self.max_tokens = limits.max_tokens
        """Planned tokens of a request; lower while the server takes smaller ones only."""
        self._waiting: dict[bytes, Input] = {}
        self._tokens = 0
        self._packed: deque[list[Input]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting) or any(self._packed)

    @property
    def tokens(self) -> int:
        """Planned tokens of all texts that wait."""
        packed = sum(item.planned_tokens for request in self._packed for item in request)
        return self._tokens + packed

    @property
    def is_full(self) -> bool:
        """Whether enough waits to keep every request in flight full."""
        ahead = self._limits.concurrency
        return (
            len(self._waiting) >= ahead * self._limits.max_inputs
            or self._tokens >= ahead * self.max_tokens
        )

    def add(self, item: Input) -> None:
        """Queues one text."""
        self._waiting[item.content_hash] = item
        self._tokens += item.planned_tokens

    def put_back(self, *requests: list[Input]) -> None:
        """Queues whole requests, to be sent next as they are."""
        self._packed.extendleft(reversed(requests))

    def unpack(self, request: list[Input]) -> None:
        """Queues the texts of a request before all others, to be packed anew."""
        self._waiting = {**{item.content_hash: item for item in request}, **self._waiting}
        self._tokens += sum(item.planned_tokens for item in request)

    def turn(self) -> None:
        """Reverses the order of the requests that were put back."""
        self._packed.reverse()

    def queued(self, hashes: Collection[bytes]) -> list[bytes]:
        """Of these texts, those that can still be dropped."""
        packed = {item.content_hash for request in self._packed for item in request}
        return [each for each in hashes if each in self._waiting or each in packed]

    def drop(self, hashes: Collection[bytes]) -> None:
        """Forgets queued texts."""
        dropped = set(hashes)
        for content_hash in dropped & self._waiting.keys():
            self._tokens -= self._waiting.pop(content_hash).planned_tokens
        for request in self._packed:
            request[:] = [item for item in request if item.content_hash not in dropped]

    def take(self, *, flush: bool) -> list[Input]:
        """The next request; empty if none is full yet, unless `flush` says not to wait for more."""
        while self._packed:
            request = self._packed.popleft()
            if request:  # not all of it was dropped
                return request
        inputs: list[Input] = []
        tokens = 0
        for item in self._waiting.values():
            if len(inputs) == self._limits.max_inputs:
                break
            if inputs and tokens + item.planned_tokens > self.max_tokens:
                break
            inputs.append(item)
            tokens += item.planned_tokens
        is_all = len(inputs) == len(self._waiting)
        has_room = len(inputs) < self._limits.max_inputs and tokens < self.max_tokens
        if is_all and has_room and not flush:
            return []
        self.drop([item.content_hash for item in inputs])
        return inputs

    def clear(self) -> None:
        """Forgets everything that is not sent yet."""
        self._waiting.clear()
        self._packed.clear()
        self._tokens = 0


def largest_request(embedder: Embedder) -> int:
    """Planned tokens of a request, by the model's limit and by what the server takes at present."""
    most, pace = embedder.limits.max_tokens, embedder.pace
    return most if pace is None else min(most, pace.largest)


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Divides `total` among `weights` in proportion, in whole numbers that add up to it."""
    whole = sum(weights) or 1
    shares: list[int] = []
    seen = given = 0
    for weight in weights:
        seen += weight
        due = total * seen // whole
        shares.append(due - given)
        given = due
    return shares
