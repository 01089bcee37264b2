"""Redacts one call: the same value gets the same number, wherever it is written or said."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.redaction import spoken, written
from embedding_assets.engine.redaction.spans import Kind, Span, without_overlaps

DEFAULT_REGION = "US"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is replaced, and the country of telephone numbers without a country code."""

    kinds: tuple[Kind, ...]
    region: str = DEFAULT_REGION

    @property
    def name(self) -> str:
        """What published recordings say of it."""
        kinds = ",".join(sorted(self.kinds))
        return f"{kinds} ({self.region})" if Kind.phone in self.kinds else kinds


def parse_redaction(kinds: str, region: str) -> Redaction | None:
    """What REDACT and REDACT_REGION say; None where nothing is redacted.

    Raises:
        ConfigurationError: a kind or the region is not known.
    """
    named = [each.strip().lower() for each in kinds.split(",") if each.strip()]
    known = {kind.value for kind in Kind}
    for each in named:
        if each not in known:
            raise ConfigurationError(f"REDACT: {each} is not known; known are {', '.join(known)}")
    if not named and region == DEFAULT_REGION:
        return None
    import phonenumbers  # noqa: PLC0415  (takes a while, and most redact nothing)

    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ConfigurationError(
            f"REDACT_REGION is {region}: write a country's two letters, such as US or GB"
        )
    return Redaction(tuple(Kind(each) for each in dict.fromkeys(named)), region) if named else None


class Redactor:
    """Replaces values in the texts of one call, in order; `[email 2]` is its second address."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._known: dict[Kind, dict[str, int]] = {}

    def redact(self, text: str) -> str:
        """The text with what was found replaced. What stands in its place tells nothing of it."""
        parts: list[str] = []
        at = 0
        for span in find(text, self._redaction):
            parts += [text[at : span.start], f"[{span.kind} {self._number(span)}]"]
            at = span.end
        return "".join([*parts, text[at:]])

    def _number(self, span: Span) -> int:
        known = self._known.setdefault(span.kind, {})
        return known.setdefault(span.value, len(known) + 1)


def find(text: str, redaction: Redaction) -> list[Span]:
    """Where a text identifies somebody, in order, without overlaps."""
    kinds = set(redaction.kinds)
    return without_overlaps(_found(text, kinds, redaction.region))


def _found(text: str, kinds: set[Kind], region: str) -> Iterator[Span]:
    recognisers: dict[Kind, tuple[Callable[[str], Iterable[Span]], ...]] = {
        Kind.email: (written.emails, spoken.emails),
        Kind.card: (written.cards,),
        Kind.iban: (written.ibans,),
        Kind.ssn: (written.ssns,),
        Kind.phone: (partial(written.phones, region=region),),
    }
    for kind in kinds:
        for recognise in recognisers[kind]:
            yield from recognise(text)
    yield from spoken.numbers(text, kinds)
