"""What turns texts into vectors, behind one small interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedding_assets.engine.pace import Pace

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How large one `embed` call may be, and how many may be under way at once."""

    max_inputs: int
    max_tokens: int  # of all inputs together, as `Embedder.planned_tokens` counts
    max_input_tokens: int  # of one input
    concurrency: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one `embed` call."""

    vectors: Vectors  # shape (inputs, dimensions), finite, no row of length zero
    tokens: int  # as the model counted them
    requests: int = 1
    refusals: int = 0  # of those, the ones that came too soon or were too much


def cost_usd(tokens: int, price_per_million_tokens: float | None) -> float | None:
    """US dollars of so many tokens; None where the price is not known."""
    return None if price_per_million_tokens is None else tokens * price_per_million_tokens / 1e6


class Embedder(Protocol):
    """A model, ready to embed. `embed` may be called from several threads at once."""

    @property
    def model(self) -> str:
        """The name vectors are stored under: `provider/model/dimensions`."""

    @property
    def dimensions(self) -> int:
        """Length of every vector."""

    @property
    def limits(self) -> RequestLimits:
        """Bounds that a caller packs its requests within."""

    @property
    def price_per_million_tokens(self) -> float | None:
        """US dollars, 0 for a local model, None where unknown."""

    @property
    def pace(self) -> Pace | None:
        """When requests may leave and how large they may be; None where nothing limits them."""

    def planned_tokens(self, text: str) -> int:
        """An upper bound of the tokens the model will count in `text`."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embeds `texts`, in order.

        Errors tell in `requests` and `tokens` what the call has cost all the same.

        Raises:
            TransientError: worth trying later; retries inside were used up.
            RequestTooLargeError: the server takes fewer of these texts at once.
            ConfigurationError: key, model, dimensions or quota; the text names the mend.
            InvalidInputError: the model refuses one of the inputs, or the whole batch for one.
        """

    def close(self) -> None:
        """Ends waiting between retries; calls that wait fail soon."""
