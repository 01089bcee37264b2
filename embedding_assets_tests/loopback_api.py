"""A real HTTP server on 127.0.0.1 that speaks the OpenAI embeddings API, and fails when told to.

In a test: `with LoopbackAPI() as api: ...`. As a process of its own, for load tests:
`python -m embedding_assets_tests.loopback_api --latency-ms 100`, which prints its base URL and
tells what it counted at `GET /_stats`.

A vector is the sum of its words' directions, so texts that share words are near each other, and a
text has the same vector in every process.
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import click
import numpy as np
import uvicorn
from numpy.typing import NDArray

from embedding_assets_tests.loopback_batches import LoopbackBatches

MAX_INPUTS = 2_048
MAX_TOKENS = 300_000
MAX_INPUT_TOKENS = 8_192


@dataclass
class Fault:
    """What goes wrong with requests that `when` picks, `times` times (None: always)."""

    status: int = 0  # 0: see below
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # close the connection without a word
    truncate: bool = False  # close it in the middle of the answer
    stall: float = 0.0  # seconds before the answer
    drip: float = 0.0  # seconds before each few bytes of the answer
    body: bytes | None = None  # say 200 and this
    spoil: Callable[[Sequence[str], NDArray[np.float32]], NDArray[np.float32]] | None = None
    times: int | None = None
    when: Callable[[Sequence[str]], bool] = lambda _: True
    after: int = 0  # let so many requests pass first
    hit: Counter[str] = field(default_factory=Counter)  # texts of the requests, by hash


@dataclass
class Quota:
    """What an account may send in a minute: token buckets, as OpenAI has them."""

    tokens: int | None = None
    requests: int | None = None
    minute: float = 60.0  # seconds, shorter in tests
    tells: str = "all"  # in headers; "remaining": nothing else; "nothing"
    _left: dict[str, float] = field(default_factory=dict)
    _at: float | None = None

    def take(self, tokens: int, now: float | None = None) -> tuple[bool, dict[str, str]]:
        """Whether a request of so many tokens is answered, and the headers that go with it."""
        now = time.monotonic() if now is None else now
        limits = {"tokens": self.tokens, "requests": self.requests}
        needed = {"tokens": tokens, "requests": 1}
        known = {kind: limit for kind, limit in limits.items() if limit is not None}
        passed = 0.0 if self._at is None else (now - self._at) / self.minute
        self._at = now
        for kind, limit in known.items():
            self._left[kind] = min(limit, self._left.get(kind, limit) + passed * limit)
        lacking = {kind: needed[kind] - self._left[kind] for kind in known}
        is_answered = all(lack <= 0 for lack in lacking.values())
        if is_answered:
            for kind in known:
                self._left[kind] -= needed[kind]
        headers: dict[str, str] = {}
        for kind, limit in known.items():
            reset = (limit - self._left[kind]) / limit * self.minute
            if self.tells in {"all", "remaining"}:
                headers[f"x-ratelimit-remaining-{kind}"] = str(int(self._left[kind]))
            if self.tells == "all":
                headers[f"x-ratelimit-limit-{kind}"] = str(limit)
                headers[f"x-ratelimit-reset-{kind}"] = f"{int(reset * 1000)}ms"
        if not is_answered and self.tells == "all" and tokens <= (self.tokens or tokens):
            wait = max(lack / known[kind] * self.minute for kind, lack in lacking.items())
            headers["retry-after-ms"] = str(int(wait * 1000) + 1)
        return is_answered, headers


@dataclass
class Stats:
    """What the server counted."""

    requests: int = 0  # all, also those that failed
    refused: int = 0  # because of the quota
    answered: int = 0
    inputs: Counter[str] = field(default_factory=Counter)  # texts answered, by hash
    asked: dict[str, Counter[str]] = field(default_factory=dict)  # by API key, failed ones too
    tokens: int = 0
    answered_at: list[float] = field(default_factory=list)  # by the monotonic clock
    most_at_once: int = 0
    last_headers: dict[str, str] = field(default_factory=dict)

    @property
    def sent_twice(self) -> list[str]:
        """Hashes of texts that were embedded more than once."""
        return [text for text, times in self.inputs.items() if times > 1]


def text_hash(text: str) -> str:
    """How `Stats.inputs` names a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def count_tokens(text: str) -> int:
    """The server's own count, a third of the bytes."""
    return -(-len(text.encode()) // 3)


class LoopbackAPI:
    """The server, running while the context lasts."""

    def __init__(
        self,
        *,
        dimensions: int = 1536,
        api_key: str | None = None,
        models: Sequence[str] | None = None,
        latency: float = 0.0,
        ignores_base64: bool = False,
        port: int = 0,
    ) -> None:
        self.stats = Stats()
        self.faults: list[Fault] = []
        self.latency = latency
        self._dimensions = dimensions
        self._api_key = api_key
        self._models = models
        self._ignores_base64 = ignores_base64
        self.quota: Quota | None = None
        self.batches: LoopbackBatches | None = None  # None: there is no batch API
        self._at_once = 0
        self._socket = socket.create_server(("127.0.0.1", port))
        config = uvicorn.Config(
            self._application, interface="asgi3", log_level="critical", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL takes."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def serve(self) -> None:
        """Serves in the caller's thread until interrupted."""
        self._serve()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._at_once += 1
        self.stats.most_at_once = max(self.stats.most_at_once, self._at_once)
        try:
            await self._answer(scope, body, send)
        finally:
            self._at_once -= 1

    async def _answer(self, scope: Any, body: bytes, send: Any) -> None:
        headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
        if scope["path"] == "/v1/embeddings" and scope["method"] == "POST":
            await self._answer_embeddings(headers, body, send)
            return
        handled: tuple[int, bytes] | None = None
        if (scope["method"], scope["path"]) == ("GET", "/_stats"):
            handled = 200, json.dumps(vars(self.stats)).encode()
        elif self.batches is not None:
            handled = self.batches.handle(
                scope["method"], scope["path"], headers, body, self._batch_answer
            )
        await _send(send, *(handled or (404, _error("no such path"))))

    async def _answer_embeddings(self, headers: dict[str, str], body: bytes, send: Any) -> None:
        self.stats.requests += 1
        self.stats.last_headers = headers
        request = json.loads(body)
        given = request["input"]
        inputs = [given] if isinstance(given, str) else given
        asked = self.stats.asked.setdefault(_key(headers), Counter())
        asked.update(text_hash(text) for text in inputs if isinstance(text, str))
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = self._fault(inputs)
        if fault is not None and await self._fail(fault, send):
            return
        refusal = self._refusal(headers, request, inputs)
        if refusal is not None:
            await _send(send, *refusal)
            return
        told: dict[str, str] = {}
        if self.quota is not None:
            is_answered, told = self.quota.take(sum(map(count_tokens, inputs)))
            if not is_answered:
                self.stats.refused += 1
                body = _error("too much in a minute", code="rate_limit_exceeded")
                await _send(send, 429, body, headers=told)
                return
        answer = self._embed(request, inputs, fault.spoil if fault else None)
        if fault is not None and fault.truncate:
            await _send(send, 200, answer[: len(answer) // 2], length=len(answer))
            return
        self.stats.answered += 1
        self.stats.inputs.update(map(text_hash, inputs))
        self.stats.tokens += sum(map(count_tokens, inputs))
        self.stats.answered_at.append(time.monotonic())
        await _send(send, 200, answer, headers=told, drip=fault.drip if fault else 0.0)

    def _fault(self, inputs: Sequence[str]) -> Fault | None:
        for fault in self.faults:
            if fault.times == 0 or not fault.when(inputs):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
            fault.hit.update(map(text_hash, inputs))
            return fault
        return None

    async def _fail(self, fault: Fault, send: Any) -> bool:
        """True if that was the whole answer."""
        if fault.stall:
            await asyncio.sleep(fault.stall)
        if fault.drop:
            await _send(send, 200, b"", length=1_000)
        elif fault.status:
            body = _error("told to fail", code=fault.code, param=fault.param)
            await _send(send, fault.status, body, headers=fault.headers, drip=fault.drip)
        elif fault.body is not None:
            await _send(send, 200, fault.body)
        else:
            return False
        return True

    def _refusal(
        self, headers: dict[str, str], request: dict[str, Any], inputs: Sequence[Any]
    ) -> tuple[int, bytes] | None:
        key = _key(headers)
        if self._api_key is not None and key != self._api_key:
            text = f"Incorrect API key provided: {key}"  # OpenAI's answer quotes it too
            return 401, _error(text, code="invalid_api_key")
        if self._models is not None and request["model"] not in self._models:
            return 404, _error("no such model", code="model_not_found")
        if request.get("dimensions", 1) > self._dimensions:
            return 400, _error("too many dimensions", param="dimensions")
        return None if _are_acceptable(inputs) else (400, _error("bad input", param="input"))

    def _batch_answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request of a batch."""
        text = request["input"]
        self.stats.inputs[text_hash(text)] += 1
        answer: dict[str, Any] = json.loads(self._embed(request, [text]))
        return answer

    def _embed(
        self,
        request: dict[str, Any],
        inputs: Sequence[str],
        spoil: Callable[..., NDArray[np.float32]] | None = None,
    ) -> bytes:
        dimensions = request.get("dimensions", self._dimensions)
        as_base64 = request.get("encoding_format") == "base64" and not self._ignores_base64
        write = _base64 if as_base64 else _numbers
        vectors = embeddings(inputs, dimensions)
        if spoil is not None:
            vectors = spoil(inputs, vectors)
        data = ", ".join(
            f'{{"object": "embedding", "index": {index}, "embedding": {write(vector)}}}'
            for index, vector in enumerate(vectors)
        )
        tokens = sum(map(count_tokens, inputs))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        rest = json.dumps({"object": "list", "model": request["model"], "usage": usage})
        return f'{rest.removesuffix("}")}, "data": [{data}]}}'.encode()


def _key(headers: dict[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


def _are_acceptable(inputs: Sequence[Any]) -> bool:
    """OpenAI's bounds on one request."""
    if not 0 < len(inputs) <= MAX_INPUTS:
        return False
    if not all(isinstance(text, str) and text for text in inputs):
        return False
    tokens = [count_tokens(text) for text in inputs]
    return max(tokens) <= MAX_INPUT_TOKENS and sum(tokens) <= MAX_TOKENS


def embedding(text: str, dimensions: int) -> NDArray[np.float32]:
    """The vector of a text: of length 1, near to those of texts with the same words."""
    vector: NDArray[np.float32] = embeddings([text], dimensions)[0]
    return vector


def embeddings(texts: Sequence[str], dimensions: int) -> NDArray[np.float32]:
    """The vectors of texts, shape (texts, dimensions).

    A word adds or subtracts 1 at eight places of its own: a sparse random projection of the text's
    words, quick enough that load tests measure the client.
    """
    words = [_WORD.findall(text.lower()) or [text] for text in texts]
    raw = b"".join(_places(word) for each in words for word in each)
    places = np.frombuffer(raw, "<u4").reshape(-1, 8)
    rows = np.repeat(np.arange(len(texts)) * dimensions, [len(each) for each in words])
    cells = rows[:, None] + places // 2 % dimensions
    signs = np.where(places % 2, 1.0, -1.0)
    total = np.bincount(cells.ravel(), signs.ravel(), len(texts) * dimensions)
    vectors: NDArray[np.float32] = total.reshape(len(texts), dimensions).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    vectors[lengths == 0, 0] = 1.0  # all words cancelled each other
    lengths[lengths == 0] = 1.0
    vectors /= lengths[:, None]
    return vectors


_WORD = re.compile(r"[^\W_]+")


@lru_cache(maxsize=200_000)
def _places(word: str) -> bytes:
    return hashlib.blake2b(word.encode(), digest_size=32).digest()


def _base64(vector: NDArray[np.float32]) -> str:
    return f'"{base64.b64encode(vector.tobytes()).decode()}"'


def _numbers(vector: NDArray[np.float32]) -> str:
    """The vector as JSON; its few different values are written once, for the same reason."""
    values, places = np.unique(vector, return_inverse=True)
    texts = np.array(list(map(repr, values.tolist())), dtype=object)
    return f"[{', '.join(texts[places])}]"


def _error(message: str, *, code: str | None = None, param: str | None = None) -> bytes:
    kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()


async def _send(
    send: Any,
    status: int,
    body: bytes,
    *,
    headers: dict[str, str] | None = None,
    length: int | None = None,
    drip: float = 0.0,
) -> None:
    """An answer; one shorter than its length ends with the connection."""
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body) if length is None else length),
        **(headers or {}),
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    while drip and body:
        await asyncio.sleep(drip)
        await send({"type": "http.response.body", "body": body[:16], "more_body": True})
        body = body[16:]
    await send({"type": "http.response.body", "body": body})


@click.command()
@click.option("--port", default=0)
@click.option("--latency-ms", default=0.0)
@click.option("--dimensions", default=1536)
def main(port: int, latency_ms: float, dimensions: int) -> None:
    """Serves until it is interrupted."""
    api = LoopbackAPI(port=port, latency=latency_ms / 1000, dimensions=dimensions)
    click.echo(api.base_url)
    api.serve()


if __name__ == "__main__":
    main()
