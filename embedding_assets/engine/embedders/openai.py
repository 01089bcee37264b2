"""Embeds through OpenAI's API, or any server that speaks it."""

import base64
import email.utils
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import tenacity

from embedding_assets.engine.embedders import Embedded, RequestLimits, Vectors
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)

OPENAI_URL = "https://api.openai.com/v1"
MAX_INPUTS = 2_048
MAX_TOKENS = 300_000
# Servers that this project does not know take at least this, most of them more.
UNKNOWN_MODEL_INPUT_TOKENS = 2_048
CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What OpenAI says of one of its models."""

    dimensions: int
    takes_dimensions: bool  # whether a request may ask for fewer
    price_per_million_tokens: float  # US dollars
    max_input_tokens: int = 8_191


KNOWN_MODELS = {
    "text-embedding-3-small": KnownModel(1536, True, 0.02),
    "text-embedding-3-large": KnownModel(3072, True, 0.13),
    "text-embedding-ada-002": KnownModel(1536, False, 0.10),
}


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a call goes on asking a server that is busy or away."""

    attempts: int = 6
    first_wait: float = 0.5  # seconds, doubled each time, with jitter
    longest_wait: float = 60.0  # of a wait, whatever Retry-After says


class OpenAIEmbedder:
    """One model at one server; `embed` packs nothing and splits nothing, it asks once per call.

    Raises:
        ConfigurationError: the key is missing, or an unknown model comes without dimensions.
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
    ) -> None:
        if not api_key:
            raise ConfigurationError(
                "OPENAI_API_KEY is not set: put the key into .env; a server that needs none takes"
                " any text"
            )
        known = KNOWN_MODELS.get(model)
        if known is None and dimensions is None:
            raise ConfigurationError(
                f"EMBEDDING_DIMENSIONS is not set, and the model {model!r} is not one of"
                f" {', '.join(KNOWN_MODELS)}: set it to the length of the model's vectors"
            )
        self._api_key = api_key
        self._base_url = (base_url or OPENAI_URL).rstrip("/")
        self._model = model
        self._timeout = timeout
        self._retries = retries or Retries()
        self._closed = threading.Event()
        self.dimensions: int = dimensions or (known.dimensions if known else 0)
        if known and not known.takes_dimensions and self.dimensions != known.dimensions:
            raise ConfigurationError(
                f"EMBEDDING_DIMENSIONS={self.dimensions}, but {model} has {known.dimensions} and"
                " no other: remove the setting"
            )
        # Other servers often refuse the parameter; theirs is only checked.
        self._asks_dimensions = bool(known and known.takes_dimensions and dimensions)
        self.model = f"openai/{model}/{self.dimensions}"
        self.price_per_million_tokens: float | None = price_per_million_tokens
        if price_per_million_tokens is None and known and self._base_url == OPENAI_URL:
            self.price_per_million_tokens = known.price_per_million_tokens
        self.limits = RequestLimits(
            max_inputs=MAX_INPUTS,
            max_tokens=MAX_TOKENS,
            max_input_tokens=max_input_tokens
            or (known.max_input_tokens if known else UNKNOWN_MODEL_INPUT_TOKENS),
            concurrency=concurrency or CONCURRENCY,
        )

    def planned_tokens(self, text: str) -> int:
        """UTF-8 bytes: a byte-level BPE never makes more tokens, nor does WordPiece."""
        return len(text.encode())

    def close(self) -> None:
        """Ends waiting between retries; calls that wait fail."""
        self._closed.set()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embeds `texts` in one request, repeated while the server is busy or away.

        Raises:
            TransientError: the server stayed busy or away.
            ConfigurationError: key, model, dimensions, quota or URL; the text names the mend.
            InvalidInputError: the server refuses one of the texts.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._retries.attempts)
            | tenacity.stop_when_event_set(self._closed),
            sleep=tenacity.sleep_using_event(self._closed),
        )
        try:
            vectors, tokens = retrying(self._ask, texts)
        except tenacity.RetryError as error:
            failure = self._meaning(error.last_attempt.exception())
        except (openai.OpenAIError, _BadAnswerError) as error:
            failure = self._meaning(error)
        else:
            requests = int(retrying.statistics["attempt_number"])
            return Embedded(self._checked(vectors), tokens, requests)
        # Outside of the handler: the client's error, which may quote the key, must not ride along.
        raise failure

    @cached_property
    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(
            api_key=self._api_key,
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,  # the client would retry a used-up quota too
        )

    def _ask(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """One request; vectors of shape (texts, whatever the server gives)."""
        answer = self._client.embeddings.with_raw_response.create(
            model=self._model,
            input=list(texts),
            encoding_format="base64",
            dimensions=self.dimensions if self._asks_dimensions else openai.omit,
        )
        # Parsed here: the client would check every float of the answer against its types.
        try:
            body = json.loads(answer.http_response.content)
            ordered = sorted(body["data"], key=lambda each: int(each["index"]))
            if [int(each["index"]) for each in ordered] != list(range(len(texts))):
                raise _BadAnswerError("it is not one vector for each text")
            vectors = np.stack([_decoded(each["embedding"]) for each in ordered])
            tokens = int((body.get("usage") or {}).get("prompt_tokens") or 0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _BadAnswerError("it is not what the embeddings API answers") from None
        return vectors, tokens

    def _checked(self, vectors: Vectors) -> Vectors:
        if vectors.shape[1] != self.dimensions:
            raise ConfigurationError(
                f"EMBEDDING_DIMENSIONS is {self.dimensions}, but {self._model} at {self._place}"
                f" gives vectors of length {vectors.shape[1]}: set it to that, or choose"
                " another EMBEDDING_MODEL"
            )
        if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
            raise InvalidInputError("the model gave a vector that is not finite, or of length zero")
        return vectors

    @property
    def _place(self) -> str:
        """Host and port, without what else a URL may hold."""
        parts = urlsplit(self._base_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.hostname or 'the server'}{port}"

    def _wait(self, state: tenacity.RetryCallState) -> float:
        exponential = tenacity.wait_random_exponential(
            multiplier=self._retries.first_wait, max=self._retries.longest_wait
        )
        asked = _retry_after(state.outcome.exception() if state.outcome else None)
        return min(max(exponential(state), asked), self._retries.longest_wait)

    def _meaning(self, error: BaseException | None) -> EmbeddingAssetsError:
        """What a failed call means, by type, status and code; never by the text, never with it."""
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

    def _status_meaning(self, error: openai.APIStatusError) -> EmbeddingAssetsError:
        code = f" ({error.code})" if _is_word(error.code) else ""
        said = f"{self._place} answered {error.status_code}{code}"
        mend = self._mend(error)
        if mend is not None:
            return ConfigurationError(f"{said}: {mend}")
        if _is_passing(error):
            return TransientError(f"{said}, and did so again when asked again")
        return InvalidInputError(f"{said}: the model refuses this input")

    def _mend(self, error: openai.APIStatusError) -> str | None:
        """Which setting is wrong, if one is."""
        mends = (
            (error.status_code in {401, 403}, "OPENAI_API_KEY is refused; set a valid key"),
            (
                error.code == "insufficient_quota",
                "the quota of OPENAI_API_KEY is used up; raise it or set another key",
            ),
            (
                error.code == "model_not_found" or error.param == "model",
                f"EMBEDDING_MODEL={self._model} is not known there",
            ),
            (
                error.param == "dimensions",
                f"EMBEDDING_DIMENSIONS={self.dimensions} is refused for {self._model}",
            ),
            (
                error.status_code == 404,
                "no embeddings API at OPENAI_BASE_URL, which usually ends in /v1; or"
                f" EMBEDDING_MODEL={self._model} is not known there",
            ),
        )
        return next((mend for applies, mend in mends if applies), None)


class _BadAnswerError(Exception):
    """The server said yes, and then something that is no answer."""


def _decoded(embedding: Any) -> Vectors:
    """One vector, from base64 or, from servers that do not know that, from a list of numbers."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4").astype(np.float32, copy=False)
    return np.array(embedding, np.float32)


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, openai.APIStatusError):
        if error.code == "insufficient_quota":
            return False
        return error.status_code in {408, 409, 425, 429} or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | _BadAnswerError)


def _retry_after(error: BaseException | None) -> float:
    """Seconds that the server asks to wait: a number, a date, or milliseconds."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        value = headers.get("retry-after", "0")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        at = email.utils.parsedate_to_datetime(value)
        return (at - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _is_word(code: str | None) -> bool:
    """Whether a server's code is one, and not a sentence that quotes something."""
    return code is not None and len(code) <= 64 and code.replace("_", "").isalnum()
