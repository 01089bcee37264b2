"""Embeds through OpenAI's API, or any server that speaks it."""

import base64
import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
import tenacity
from pydantic_core import from_json

from embedding_assets.engine.embedders import Embedded, RequestLimits, Vectors
from embedding_assets.engine.embedders.openai_models import KNOWN_MODELS, checked_dimensions
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets.engine.pace import Ceilings, Pace, retry_after

if TYPE_CHECKING:  # else by whoever asks: it takes longer to import than most commands run
    import openai

OPENAI_URL = "https://api.openai.com/v1"
MAX_INPUTS = 2_048
MAX_TOKENS = 300_000
# What a batch may hold on text-embeddings-inference as it comes, the strictest of the common ones.
UNKNOWN_MODEL_INPUTS = 32
# Long enough for the default chunk; small models take 512, and their users must say so.
UNKNOWN_MODEL_INPUT_TOKENS = 2_048
CONCURRENCY = 4
NO_CREDIT = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a call goes on asking a server that is busy or away."""

    attempts: int = 6
    first_wait: float = 0.5  # seconds, doubled each time, with jitter
    longest_wait: float = 60.0  # seconds of one wait

    @property
    def patience(self) -> float:
        """Seconds after which a server that refuses every request counts as busy for good."""
        return self.attempts * self.longest_wait


@dataclass(slots=True)
class _Sent:
    """How many requests a call made, also those that failed; refused for their pace alone."""

    requests: int = 0
    refusals: int = 0


class OpenAIEmbedder:
    """One model at one server; `embed` packs nothing and splits nothing, it asks once per call.

    Of the environment it reads only what the client adds by itself: `OPENAI_CUSTOM_HEADERS`
    (though not their `Authorization`) and the proxy variables.

    Raises:
        ConfigurationError: the key is missing or cannot be one, the URL is none, or the dimensions
            are missing or more than the model has.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        model: str = "text-embedding-3-small",
        dimensions: int | None = None,
        price_per_million_tokens: float | None = None,
        max_input_tokens: int | None = None,
        concurrency: int | None = None,
        timeout: float = 60.0,
        retries: Retries | None = None,
        ceilings: Ceilings | None = None,
    ) -> None:
        self._api_key = _checked_key(api_key)
        self._url = _checked_url(base_url or OPENAI_URL)
        known = KNOWN_MODELS.get(model)
        self.dimensions: int = checked_dimensions(model, known, dimensions)
        self._model = model
        self._timeout = timeout
        self._retries = retries or Retries()
        self._closed = threading.Event()
        self._first_use = threading.Lock()
        # Other servers often refuse the parameter; theirs is only checked.
        self._asks_dimensions = known is not None and self.dimensions != known.dimensions
        self.model = f"openai/{model}/{self.dimensions}"
        self.price_per_million_tokens: float | None = price_per_million_tokens
        if price_per_million_tokens is None and known and self._url.geturl() == OPENAI_URL:
            self.price_per_million_tokens = known.price_per_million_tokens
        self.limits = RequestLimits(
            max_inputs=MAX_INPUTS if known else UNKNOWN_MODEL_INPUTS,
            max_tokens=MAX_TOKENS,
            max_input_tokens=max_input_tokens
            or (known.max_input_tokens if known else UNKNOWN_MODEL_INPUT_TOKENS),
            concurrency=concurrency or CONCURRENCY,
        )
        self.pace = Pace(
            self.limits.max_tokens,
            ceilings,
            first_wait=self._retries.first_wait,
            longest_wait=self._retries.longest_wait,
        )

    def planned_tokens(self, text: str) -> int:
        """UTF-8 bytes, and two that other models add at the ends.

        A byte-level BPE never makes more tokens than bytes, nor does WordPiece, nor SentencePiece,
        whose smallest pieces are bytes.
        """
        return len(text.encode(errors="surrogatepass")) + 2

    def close(self) -> None:
        """Ends waiting between retries; calls that wait fail."""
        self._closed.set()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embeds `texts` in one request, repeated while the server is busy or away.

        Waits for its turn where the server, or a setting, limits the pace.

        Raises:
            TransientError: the server stayed busy or away.
            RequestTooLargeError: the server takes fewer of these texts at once.
            ConfigurationError: key, model, dimensions, quota or URL; the text names the mend.
            InvalidInputError: the server refuses one of the texts.
        """
        import openai  # noqa: PLC0415

        if not all(map(_is_unicode, texts)):
            raise InvalidInputError("a text is not valid Unicode: it holds half a surrogate pair")
        sent = _Sent()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._retries.attempts)
            | tenacity.stop_when_event_set(self._closed),
            sleep=tenacity.sleep_using_event(self._closed),
        )
        tokens = 0
        try:
            vectors, tokens = retrying(self._ask_in_turn, texts, sent)
            self.check(vectors)
        except tenacity.RetryError as error:
            failure = self.meaning(error.last_attempt.exception())
        except (openai.OpenAIError, _BadAnswerError) as error:
            failure = self.meaning(error)
        except EmbeddingAssetsError as error:
            failure = error
        else:
            return Embedded(vectors, tokens, sent.requests, sent.refusals)
        failure.requests, failure.refusals = sent.requests, sent.refusals
        failure.tokens = tokens
        # Outside of the handler: the client's error, which may quote the key, must not ride along.
        raise failure

    @property
    def parameters(self) -> dict[str, Any]:
        """What every request says of the model."""
        parameters: dict[str, Any] = {"model": self._model}
        if self._asks_dimensions:
            parameters["dimensions"] = self.dimensions
        return parameters

    @property
    def client(self) -> "openai.OpenAI":
        """The library's client, one for all threads."""
        with self._first_use:
            return self._client

    @cached_property
    def _client(self) -> "openai.OpenAI":
        import openai  # noqa: PLC0415

        from embedding_assets.engine.embedders.in_time import in_time  # noqa: PLC0415

        class HttpClient(openai.DefaultHttpxClient):
            def __del__(self) -> None:  # as the library's own, which it uses if it is given none
                with contextlib.suppress(Exception):
                    self.close()

        # Without user and password, which the HTTP library's log would show.
        place = self._url._replace(netloc=self._url.netloc.rpartition("@")[2])
        client = openai.OpenAI(
            api_key=self._api_key,
            base_url=place.geturl(),
            timeout=openai.Timeout(self._timeout, connect=min(self._timeout, 10.0)),
            http_client=HttpClient(
                event_hooks={"response": [in_time("/embeddings", self._timeout)]}
            ),
            max_retries=0,  # the client would retry a used-up quota too
            default_headers={"Authorization": self._authorization},
        )
        # The client takes these from the environment, where no setting of this project is.
        client.organization = client.project = None
        return client

    @property
    def _authorization(self) -> str:
        """The key, or what the URL says in its place."""
        if self._url.username is None:
            return f"Bearer {self._api_key}"
        pair = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _ask_in_turn(self, texts: Sequence[str], sent: _Sent) -> tuple[Vectors, int]:
        """Asks when the pace allows it, and again as long as the server says that it was too much.

        Raises:
            RequestTooLargeError: the pace allows smaller requests only.
            TransientError: the embedder was closed.
            openai.APIStatusError: the server has refused everybody for too long.
        """
        planned = sum(map(self.planned_tokens, texts))
        while True:
            self.pace.wait_turn(planned, self._closed, is_one_text=len(texts) == 1)
            sent.requests += 1
            try:
                vectors, tokens, headers = self._ask(texts)
            except BaseException as error:
                if not _is_rate_limit(error):
                    self.pace.failed(planned)
                    raise
                sent.refusals += 1
                self.pace.refused(planned, error.response.headers)
                if self.pace.gives_up(self._retries.attempts, self._retries.patience):
                    raise
            else:
                self.pace.answered(planned, tokens, headers)
                return vectors, tokens

    def _ask(self, texts: Sequence[str]) -> tuple[Vectors, int, Mapping[str, str]]:
        """One request; vectors of shape (texts, whatever the server gives), tokens, headers."""
        # As extra body: the client would look at the type of each text of `input`.
        try:
            answer = self.client.embeddings.with_raw_response.create(
                **self.parameters, input=[], extra_body={"input": texts}, encoding_format="base64"
            )
        except Exception as error:
            # The client lets its HTTP library's errors through where it reads the body of an error.
            if type(error).__module__.startswith("httpx"):
                raise _BadAnswerError("it did not come to its end") from None
            raise
        # Parsed here: the client would check every float of the answer against its types, and
        # takes twenty times as long for servers that do not know base64.
        try:
            body = from_json(answer.http_response.content)
            ordered = sorted(body["data"], key=lambda each: int(each["index"]))
            if [int(each["index"]) for each in ordered] != list(range(len(texts))):
                raise _BadAnswerError("it is not one vector for each text")
            vectors = np.stack([decoded(each["embedding"]) for each in ordered])
            tokens = int((body.get("usage") or {}).get("prompt_tokens") or 0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _BadAnswerError("it is not what the embeddings API answers") from None
        return vectors, tokens, answer.http_response.headers

    def check(self, vectors: Vectors) -> None:
        """Raises for vectors that are not what was asked for."""
        if vectors.shape[1] != self.dimensions:
            raise ConfigurationError(
                f"EMBEDDING_DIMENSIONS is {self.dimensions}, but {self._model} at {self._place}"
                f" gives vectors of length {vectors.shape[1]}: set it to that, or choose"
                " another EMBEDDING_MODEL"
            )
        if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
            raise InvalidInputError("the model gave a vector that is not finite, or of length zero")

    @property
    def _place(self) -> str:
        """Host and port, without what else a URL may hold."""
        return self._url.netloc.rpartition("@")[2]

    def _wait(self, state: tenacity.RetryCallState) -> float:
        import openai  # noqa: PLC0415

        exponential = tenacity.wait_random_exponential(
            multiplier=self._retries.first_wait, max=self._retries.longest_wait
        )
        error = state.outcome.exception() if state.outcome else None
        asked = None
        if isinstance(error, openai.APIStatusError):
            asked = retry_after(error.response.headers)
        return min(max(exponential(state), asked or 0.0), self._retries.longest_wait)

    def meaning(self, error: BaseException | None) -> EmbeddingAssetsError:
        """What a failed call means, by type, status and code; never by the text, never with it."""
        import openai  # noqa: PLC0415

        if isinstance(error, openai.APIStatusError):
            return self._status_meaning(error)
        if isinstance(error, openai.APITimeoutError):
            return TransientError(f"the embedding server {self._place} did not answer in time")
        if isinstance(error, openai.APIConnectionError):
            return TransientError(
                f"cannot reach the embedding server {self._place} (OPENAI_BASE_URL)"
            )
        if isinstance(error, _BadAnswerError):
            return TransientError(f"the embedding server {self._place} gave a bad answer: {error}")
        return TransientError(f"the embedding call failed: {type(error).__name__}")

    def _status_meaning(self, error: "openai.APIStatusError") -> EmbeddingAssetsError:
        code = f" ({error.code})" if _is_word(error.code) else ""
        said = f"{self._place} answered {error.status_code}{code}"
        mend = self._mend(error)
        if mend is not None:
            return ConfigurationError(f"{said}: {mend}")
        if _is_passing(error) or _is_rate_limit(error):
            return TransientError(f"{said}, and did so again when asked again")
        if error.status_code in {400, 413, 422}:
            refusal = InvalidInputError(f"{said}: the model refuses this input")
            refusal.names_input = (error.param or "").startswith("input")
            return refusal
        return ConfigurationError(f"{said}: check OPENAI_BASE_URL")

    def _mend(self, error: "openai.APIStatusError") -> str | None:
        """Which setting is wrong, if one is."""
        mends = (
            (
                error.code == "model_not_found" or error.param == "model",
                f"EMBEDDING_MODEL={self._model} is not known there, or not for this OPENAI_API_KEY",
            ),
            (error.status_code in {401, 403}, "OPENAI_API_KEY is refused; set a valid key"),
            (
                error.status_code == 402 or error.code in NO_CREDIT,
                "the quota of OPENAI_API_KEY is used up; raise it or set another key",
            ),
            (
                error.param == "dimensions",
                f"EMBEDDING_DIMENSIONS={self.dimensions} is refused for {self._model}",
            ),
            (
                bool(error.response.history),
                "OPENAI_BASE_URL leads on to another address; set it to that one (https?)",
            ),
            (
                error.status_code in {404, 405},
                "no embeddings API at OPENAI_BASE_URL, which usually ends in /v1; or"
                f" EMBEDDING_MODEL={self._model} is not known there",
            ),
        )
        return next((mend for applies, mend in mends if applies), None)


class _BadAnswerError(Exception):
    """The server said yes, and then something that is no answer."""


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key:
        raise ConfigurationError(
            "OPENAI_API_KEY is not set: put the key into .env; a server that needs none takes"
            " any text"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "OPENAI_API_KEY holds a space, a line break or a letter that no key has: copy it again"
        )
    return key


def _checked_url(url: str) -> SplitResult:
    """The URL in parts, without spaces or slashes at its end. No error quotes it: passwords."""
    try:
        parts = urlsplit(url.strip().rstrip("/"))
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigurationError(
            "OPENAI_BASE_URL is not a URL like https://host/v1 or http://host:port/v1"
        )
    return parts


def _is_unicode(text: str) -> bool:
    """Whether it has a UTF-8 form; half a surrogate pair has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decoded(embedding: Any) -> Vectors:
    """One vector, from base64 or, from servers that do not know that, from a list of numbers."""
    if isinstance(embedding, str):
        raw = base64.b64decode(embedding, validate=True)
        return np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
    vector = np.array(embedding, np.float32)
    if vector.ndim != 1:
        raise _BadAnswerError("it is not one vector for each text")
    return vector


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    import openai  # noqa: PLC0415

    if isinstance(error, openai.APIStatusError):
        if error.code in NO_CREDIT:
            return False
        # 424 is text-embeddings-inference's word for a model that failed.
        return error.status_code in {408, 409, 424, 425} or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | _BadAnswerError)


def _is_rate_limit(error: BaseException) -> TypeGuard["openai.APIStatusError"]:
    """Whether the server says that this was too much for the moment."""
    import openai  # noqa: PLC0415

    return (
        isinstance(error, openai.APIStatusError)
        and error.status_code == 429
        and error.code not in NO_CREDIT
    )


def _is_word(code: str | None) -> bool:
    """Whether a server's code is one, and not a sentence that quotes something."""
    return code is not None and len(code) <= 64 and code.replace("_", "").isalnum()
