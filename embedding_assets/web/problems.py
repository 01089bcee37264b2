"""What goes wrong, as HTTP tells it: RFC 9457, problem details."""

from typing import Any, TypeVar

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    StatementTimeoutError,
    TransientError,
)
from embedding_assets.web.pool import BusyError, ClientGoneError

T = TypeVar("T")

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED = 499  # nobody reads it; as nginx logs it


class UnauthorizedError(EmbeddingAssetsError):
    """It is not known who asks."""


class ForbiddenError(EmbeddingAssetsError):
    """Who asks may not do that."""


class NotFoundError(EmbeddingAssetsError):
    """There is no such thing, or it is not to be seen by who asks."""


class TooManyError(EmbeddingAssetsError):
    """Who asks has asked too often; `seconds` until the next may come."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class TooLargeError(EmbeddingAssetsError):
    """The body is longer than is taken."""


NO_CALL = "there is no such call, or it is not yours to see"


def seen(found: T | None) -> T:
    """What was found of a call.

    Raises:
        NotFoundError: nothing, for who asks.
    """
    if found is None:
        raise NotFoundError(NO_CALL)
    return found


STATUS: dict[type[EmbeddingAssetsError], tuple[int, str]] = {
    UnauthorizedError: (401, "Not signed in"),
    ForbiddenError: (403, "Not allowed"),
    NotFoundError: (404, "Not found"),
    TooLargeError: (413, "Too large"),
    InvalidInputError: (422, "Not understood"),
    TooManyError: (429, "Too many requests"),
    ClientGoneError: (CLIENT_CLOSED, "Nobody waits"),
    BusyError: (503, "Busy"),
    ConfigurationError: (503, "Not set up"),
    TransientError: (503, "Not available"),
    StatementTimeoutError: (504, "Took too long"),
}
TOO_SLOW = (
    "the database took too long: narrow the search to fewer calls or dates, or use rarer words"
)


def problem_of(error: EmbeddingAssetsError) -> tuple[dict[str, Any], dict[str, str]]:
    """The document of an error, and the headers that go with it."""
    status, title = next(
        (told for kind, told in STATUS.items() if isinstance(error, kind)), (500, "Failed")
    )
    detail = TOO_SLOW if isinstance(error, StatementTimeoutError) else str(error)
    headers = {}
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = 'Bearer realm="embedding-assets"'
    if isinstance(error, TooManyError):
        headers["retry-after"] = str(int(error.seconds) + 1)
    elif status == 503:
        headers["retry-after"] = "5"
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}, headers
