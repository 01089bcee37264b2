"""Asks Fathom's API for meetings, at the pace that it lets through.

Form: https://developers.fathom.ai/api-reference/meetings/list-meetings.
"""

import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import httpx
import tenacity
from pydantic import SecretStr

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    TransientError,
)
from embedding_assets.settings import FATHOM_URL

ATTEMPTS = 6  # while the server fails or is away; how often it says "too many" does not matter
LONGEST_WAIT = 300.0  # seconds that a server may ask for
_TOO_MANY = 429
_SERVER_ERROR = 500
_REFUSED = {401, 403}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of meetings, as the server writes them; without a cursor it is the last."""

    items: list[Any]
    next_cursor: str | None


class KeyRefusedError(EmbeddingAssetsError):
    """The server does not take the key."""


class OutOfTimeError(TransientError):
    """The next request would be sent after the deadline."""


class _BusyError(TransientError):
    """Worth asking again."""

    wait: float | None = None  # seconds that the server asks for
    is_limit: bool = False


class FathomAPI:
    """The meetings that one key sees.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(
        self, secret: SecretStr, base_url: str = FATHOM_URL, *, first_wait: float = 0.5
    ) -> None:
        try:
            url = httpx.URL(f"{base_url.rstrip('/')}/meetings")
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigurationError("FATHOM_BASE_URL is no web address such as " + FATHOM_URL)
        self._url = url
        self._client = httpx.Client(
            headers={"X-Api-Key": secret.get_secret_value(), "Accept": "application/json"},
            timeout=httpx.Timeout(60.0, connect=10.0),
        )
        self._backoff = tenacity.wait_random_exponential(multiplier=first_wait, max=30.0)
        self._free_at = {True: 0.0, False: 0.0}  # with transcripts, without: by time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def meetings(
        self,
        after: datetime,
        before: datetime,
        cursor: str | None = None,
        *,
        with_transcripts: bool,
        deadline: float,
    ) -> Page:
        """One page of the meetings created between two moments.

        Args:
            after: by which Fathom's `created_after` goes.
            before: by which `created_before` goes.
            cursor: of the page before; None for the first.
            with_transcripts: fewer such requests are let through.
            deadline: by `time.monotonic()`; no request is sent after it.

        Raises:
            KeyRefusedError: the server does not take the key.
            OutOfTimeError: the server lets no request through before the deadline.
            TransientError: the server stayed away, or its answers make no sense.
        """
        parameters = {
            "created_after": _iso(after),
            "created_before": _iso(before),
            "include_transcript": "true" if with_transcripts else "false",
        }
        if cursor is not None:
            parameters["cursor"] = cursor
        is_late = tenacity.stop_before_delay(max(deadline - time.monotonic(), 0.0))
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BusyError),
            wait=self._wait,
            stop=lambda state: is_late(state) or _is_given_up(state),
            reraise=True,
        )
        try:
            return retrying(self._ask, parameters, with_transcripts, deadline)
        except _BusyError as error:
            kind = OutOfTimeError if error.is_limit else TransientError
            raise kind(str(error)) from None

    def _ask(self, parameters: dict[str, str], with_transcripts: bool, deadline: float) -> Page:
        free_at = self._free_at[with_transcripts]
        if max(free_at, time.monotonic()) > deadline:
            raise OutOfTimeError("Fathom lets the next request through after this run's time")
        time.sleep(max(0.0, free_at - time.monotonic()))
        try:
            answer = self._client.get(self._url, params=parameters)
        except httpx.HTTPError as error:
            # Without the library's text, which may quote what was sent.
            raise _BusyError(f"Fathom cannot be reached ({type(error).__name__})") from None
        if answer.headers.get("RateLimit-Remaining", "").strip() == "0":
            self._free_at[with_transcripts] = time.monotonic() + (
                _seconds(answer, "RateLimit-Reset") or 0.0
            )
        return _page(answer)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _BusyError) else None
        return self._backoff(state) if asked is None else asked


def _is_given_up(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    is_limit = isinstance(error, _BusyError) and error.is_limit
    return not is_limit and state.attempt_number >= ATTEMPTS


def _page(answer: httpx.Response) -> Page:
    if answer.status_code in _REFUSED:
        raise KeyRefusedError(f"Fathom refuses the key ({answer.status_code})")
    if answer.status_code == _TOO_MANY:
        busy = _BusyError("Fathom lets no more requests through (429)")
        busy.is_limit = True
        busy.wait = _seconds(answer, "Retry-After") or _seconds(answer, "RateLimit-Reset")
        raise busy
    if answer.status_code >= _SERVER_ERROR:
        raise _BusyError(f"Fathom failed ({answer.status_code})")
    if not answer.is_success:
        raise TransientError(
            f"Fathom answered {answer.status_code} instead of a page of meetings: is"
            " FATHOM_BASE_URL right?"
        )
    try:
        page = json.loads(answer.content)
        items, cursor = page["items"], page.get("next_cursor")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise _BusyError("Fathom's answer is no page of meetings") from None
    if not isinstance(items, list) or not isinstance(cursor, str | None):
        raise _BusyError("Fathom's answer is no page of meetings")
    return Page(items, cursor or None)


def _seconds(answer: httpx.Response, header: str) -> float | None:
    """Seconds that a header says, within reason; None if it says none."""
    try:
        seconds = float(answer.headers.get(header, ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
