"""What an error of the model means: for the request that met it, and for the whole run."""

from enum import StrEnum

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    RequestTooLargeError,
    TransientError,
)
from embedding_assets.engine.queue import Claim

FAILED_REQUESTS = 3  # so many in a row, and the run stops asking: the API is down
REFUSED_RECORDINGS = 3  # so many before any text is accepted, and the configuration is at fault


class Verdict(StrEnum):
    """What becomes of a request that failed."""

    STOP_RUN = "stop_run"  # no request can succeed
    BISECT = "bisect"  # send its halves, until the text that is refused stands alone
    SPLIT = "split"  # send smaller requests of the same texts
    FAIL = "fail"  # the recordings that need its texts fail


def verdict(error: EmbeddingAssetsError, texts: int) -> Verdict:
    """Decides by the kind of the error and the number of texts in the request."""
    if isinstance(error, ConfigurationError):
        return Verdict.STOP_RUN
    if isinstance(error, RequestTooLargeError):
        return Verdict.SPLIT
    if isinstance(error, InvalidInputError) and texts > 1:
        return Verdict.BISECT
    return Verdict.FAIL


class ModelStanding:
    """What a run knows of the model so far: whether it answers, and whether it accepts any text.

    A refusal that names no text may be a refusal of everything, so that the configuration is at
    fault. Until the model has accepted one text, recordings that fail by such a refusal are in
    doubt: they do not end yet.
    """

    def __init__(self) -> None:
        self._accepted_any = False
        self._failed_in_a_row = 0
        self._refused: dict[str, EmbeddingAssetsError] = {}  # by recording, while in doubt

    def accepted(self) -> None:
        """The model answered a request with vectors."""
        self._accepted_any = True
        self._failed_in_a_row = 0

    def failed(self, error: EmbeddingAssetsError, claim: Claim) -> None:
        """The last try of a request failed; `claim` is on the recording that pays for it."""
        # Refused before: its own text may well be at fault, so it is no evidence.
        if self.is_in_doubt(error) and not claim.was_refused:
            self._refused[claim.recording_id] = error
        self._failed_in_a_row += isinstance(error, TransientError)

    def is_in_doubt(self, error: EmbeddingAssetsError | None) -> bool:
        """Whether this may be a refusal of everything."""
        is_vague = isinstance(error, InvalidInputError) and not error.names_input
        return is_vague and not self._accepted_any

    @property
    def is_down(self) -> bool:
        """Whether so many requests failed in a row that asking on is of no use."""
        return self._failed_in_a_row >= FAILED_REQUESTS

    @property
    def refuses_everything(self) -> bool:
        """Whether it has refused enough recordings, and accepted none, to blame the settings."""
        return not self._accepted_any and len(self._refused) >= REFUSED_RECORDINGS

    def configuration_error(self) -> ConfigurationError:
        """The error of a run whose model refuses everything."""
        *_, error = self._refused.values()
        return ConfigurationError(
            f"{error}; so it did for {len(self._refused)} recordings, and it accepted none:"
            " check OPENAI_BASE_URL, EMBEDDING_MODEL and EMBEDDING_MAX_INPUT_TOKENS"
        )
