"""What OpenAI says of its models."""

from dataclasses import dataclass

from embedding_assets.engine.errors import ConfigurationError


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


def checked_dimensions(model: str, known: KnownModel | None, dimensions: int | None) -> int:
    """The length of its vectors, as the setting says or as the model has it.

    Raises:
        ConfigurationError: the setting is missing, or the model has no such length.
    """
    if known is None:
        if dimensions is None:
            raise ConfigurationError(
                f"EMBEDDING_DIMENSIONS is not set, and the model {model!r} is not one of"
                f" {', '.join(KNOWN_MODELS)}: set it to the length of the model's vectors"
            )
        return dimensions
    if dimensions is None:
        return known.dimensions
    if dimensions > known.dimensions:
        raise ConfigurationError(
            f"EMBEDDING_DIMENSIONS={dimensions}, but {model} has {known.dimensions} at most:"
            " lower or remove the setting"
        )
    if dimensions != known.dimensions and not known.takes_dimensions:
        raise ConfigurationError(
            f"EMBEDDING_DIMENSIONS={dimensions}, but {model} has {known.dimensions} and"
            " no other: remove the setting"
        )
    return dimensions
