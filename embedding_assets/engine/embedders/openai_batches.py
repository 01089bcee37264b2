"""The batch API of OpenAI, and of servers that speak it: files, batches and their states.

See https://platform.openai.com/docs/guides/batch. Nothing here waits for a batch.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import openai

from embedding_assets.engine.embedders.openai import OpenAIEmbedder, decoded
from embedding_assets.engine.errors import (
    AnswersGoneError,
    ConfigurationError,
    EmbeddingAssetsError,
)

ENDPOINT: Literal["/v1/embeddings"] = "/v1/embeddings"
METADATA_KEY = "embedding_assets_batch"
FINAL = frozenset({"completed", "expired", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """What the provider says of a batch."""

    name: str
    status: str
    output_file: str | None = None
    error_file: str | None = None
    error_code: str | None = None  # of a batch that failed


@dataclass(frozen=True, slots=True)
class Line:
    """The answer to one request of a batch: a vector with its tokens, or an error."""

    custom_id: str
    vector: Any = None
    tokens: int = 0
    error_code: str | None = None


class BatchAPI:
    """Files and batches at the embedder's server.

    Raises, from every method:
        TransientError: the server is busy or away.
        ConfigurationError: the key is refused, or the server has no batch API.
        AnswersGoneError: it has no such batch or file.
    """

    def __init__(self, embedder: OpenAIEmbedder) -> None:
        self._embedder = embedder

    def require(self) -> None:
        """Raises ConfigurationError unless the server has a batch API."""
        with self._errors():
            self._embedder.client.batches.list(limit=1)

    def request(self, custom_id: str, text: str) -> str:
        """One line of an input file."""
        body = {**self._embedder.parameters, "input": text, "encoding_format": "base64"}
        line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line) + "\n"

    def send_file(self, path: Path) -> str:
        """Uploads an input file under its own name; gives the provider's name of it."""
        with self._errors(), path.open("rb") as file:
            sent = self._embedder.client.files.create(file=(path.name, file), purpose="batch")
        return sent.id

    def find_file(self, name: str) -> str | None:
        """The file that was uploaded under this name."""
        with self._errors():
            for file in self._embedder.client.files.list(purpose="batch"):
                if file.filename == name:
                    return file.id
        return None

    def create(self, file: str, batch_id: str) -> ProviderBatch:
        """Starts a batch. There is no idempotency key: look for it with `find` before."""
        with self._errors():
            batch = self._embedder.client.batches.create(
                input_file_id=file,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={METADATA_KEY: batch_id},
            )
        return _batch(batch)

    def find(self, batch_id: str) -> ProviderBatch | None:
        """The batch that was started for this id and has not failed."""
        with self._errors():
            for batch in self._embedder.client.batches.list(limit=100):
                is_ours = (batch.metadata or {}).get(METADATA_KEY) == batch_id
                if is_ours and batch.status != "failed":
                    return _batch(batch)
        return None

    def look(self, name: str) -> ProviderBatch:
        """What became of a batch."""
        with self._errors():
            return _batch(self._embedder.client.batches.retrieve(name))

    def lines(self, file: str) -> Iterator[Line]:
        """The answers in an output or error file, read as a stream."""
        with (
            self._errors(),
            self._embedder.client.files.with_streaming_response.content(file) as answer,
        ):
            for line in answer.iter_lines():
                if line.strip():
                    yield self._line(json.loads(line))

    def delete_file(self, name: str) -> None:
        """Deletes a file; one that is gone already is none."""
        try:
            with self._errors():
                self._embedder.client.files.delete(name)
        except AnswersGoneError:
            pass

    def _line(self, line: dict[str, Any]) -> Line:
        custom_id = str(line.get("custom_id"))
        response = line.get("response") or {}
        error = line.get("error") or (response.get("body") or {}).get("error")
        if error or response.get("status_code") != 200:
            code = (error or {}).get("code") or f"status {response.get('status_code')}"
            return Line(custom_id, error_code=str(code)[:64])
        body = response["body"]
        tokens = int((body.get("usage") or {}).get("prompt_tokens") or 0)
        try:
            vector = decoded(body["data"][0]["embedding"])
            self._embedder.check(vector[None, :])
        except (ValueError, KeyError, TypeError, IndexError, EmbeddingAssetsError):
            return Line(custom_id, tokens=tokens, error_code="bad_answer")
        return Line(custom_id, vector, tokens)

    def _errors(self) -> "_Errors":
        return _Errors(self._embedder)


class NoBatchesError(ConfigurationError):
    """The server has no batch API."""


class _Errors:
    """Turns the client's errors into this project's."""

    def __init__(self, embedder: OpenAIEmbedder) -> None:
        self._embedder = embedder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, openai.OpenAIError):
            return
        path = ""
        if isinstance(error, openai.APIStatusError):
            path = error.request.url.path
        if isinstance(error, openai.APIStatusError) and error.status_code in {404, 405}:
            if path.rstrip("/").endswith(("/batches", "/files")):
                raise NoBatchesError(
                    "the server of OPENAI_BASE_URL has no batch API: unset BATCH_FROM_TOKENS, and"
                    " run without --batch"
                ) from None
            raise AnswersGoneError("the provider has no such batch or file") from None
        raise self._embedder.meaning(error) from None


def _batch(batch: Any) -> ProviderBatch:
    errors = (batch.errors.data if batch.errors else None) or []
    return ProviderBatch(
        batch.id,
        str(batch.status),
        batch.output_file_id,
        batch.error_file_id,
        str(errors[0].code) if errors else None,
    )
