"""The exception family: one class for each error kind, because the kind decides what happens."""

from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """What an attempt died of, as stored in `embedding_queue.error_kind`."""

    TRANSIENT = "transient"
    STATEMENT_TIMEOUT = "statement_timeout"
    CONFIGURATION = "configuration"
    INVALID_INPUT = "invalid_input"
    SOURCE_GONE = "source_gone"
    CRASHED = "crashed"
    BUDGET = "budget"


class EmbeddingAssetsError(Exception):
    """Root of all errors this project raises; its text is safe to log and to show.

    `requests`, `refusals` among them, and `tokens` are what a failed call of the embedder has cost
    all the same.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.TRANSIENT
    requests: int = 0
    refusals: int = 0
    tokens: int = 0


class TransientError(EmbeddingAssetsError):
    """Later, the same call may succeed: rate limits, server errors, lost connections."""


class LockedError(TransientError):
    """Somebody holds a lock that a statement would have waited for too long for."""


class DiskFullError(TransientError):
    """The database server's disk is full."""


class RequestTooLargeError(EmbeddingAssetsError):
    """The server takes smaller requests only; the same texts in parts may pass."""


class AnswersGoneError(EmbeddingAssetsError):
    """The provider no longer has a batch, or a file of it."""


class StatementTimeoutError(EmbeddingAssetsError):
    """The database's statement_timeout ended a statement; a smaller one may pass."""

    kind = ErrorKind.STATEMENT_TIMEOUT


class ClaimLostError(EmbeddingAssetsError):
    """Another run holds the recording now; nothing was written."""


class TakenForDeadError(EmbeddingAssetsError):
    """Others go on with what this run held: it may claim and write nothing more, and ends."""


class ConfigurationError(EmbeddingAssetsError):
    """Nothing can succeed until a person changes a setting; the text names it and the mend."""

    kind = ErrorKind.CONFIGURATION


class BudgetSpentError(EmbeddingAssetsError):
    """The next recording would pass the budget of the day; the run takes no more."""

    kind = ErrorKind.BUDGET


class InvalidInputError(EmbeddingAssetsError):
    """This input will never be accepted; others may be.

    Without `names_input` the model only said that something is wrong, perhaps with all requests.
    """

    kind = ErrorKind.INVALID_INPUT
    names_input: bool = False
