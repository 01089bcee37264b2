"""A place in a text that identifies somebody, and which of several finds counts."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be redacted."""

    email = "email"
    phone = "phone"
    card = "card"
    iban = "iban"
    ssn = "ssn"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a text; `value` is the same however it is written or said."""

    start: int
    end: int
    kind: Kind
    value: str


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The spans in their order; of neighbours that overlap, the longer one."""
    taken: list[Span] = []
    for each in sorted(spans, key=lambda span: (span.start, span.end)):
        last = taken[-1] if taken else None
        if last is None or each.start >= last.end:
            taken.append(each)
        elif each.end - each.start > last.end - last.start:
            taken[-1] = each
    return taken
