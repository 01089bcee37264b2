"""Finds what is written as people write it: addresses, telephone numbers, cards, accounts."""

import re
from collections.abc import Iterator

from embedding_assets.engine.redaction.numbers import is_card, is_iban, is_ssn
from embedding_assets.engine.redaction.spans import Kind, Span

# Bounded everywhere, so that no text takes long.
_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+'-]{0,63}\s?@\s?(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w@])"
)
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d]|[.,-]\d)")
_CARD_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)}  # others are tables of numbers
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_SSN = re.compile(r"(?<![\d-])(\d{3})([- ])(\d{2})\2(\d{4})(?![\d]|-\d)")
_MOST_CHARACTERS = 20_000  # that the library of telephone numbers reads at once
_SIGNS = frozenset("0123456789.:+-/")
_PLUS = re.compile(r"\+\s?\d")


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses."""
    for match in _EMAIL.finditer(text):
        value = re.sub(r"\s", "", match[0]).lower()
        yield Span(match.start(), match.end(), Kind.email, value)


def cards(text: str) -> Iterator[Span]:
    """Card numbers, with spaces or hyphens between their groups."""
    for match in _CARD.finditer(text):
        groups = re.split(r"[ -]", match[0])
        digits = "".join(groups)
        if tuple(map(len, groups)) in _CARD_GROUPS | {(len(digits),)} and is_card(digits):
            yield Span(match.start(), match.end(), Kind.card, digits)


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers."""
    for match in _IBAN.finditer(text):
        # What follows may look like more of it: the longest part that is one.
        for end in range(match.end(), match.start() + 14, -1):
            value = text[match.start() : end].replace(" ", "")
            if text[end - 1] != " " and is_iban(value):
                yield Span(match.start(), end, Kind.iban, value)
                break


def ssns(text: str) -> Iterator[Span]:
    """Social security numbers in their usual groups."""
    for match in _SSN.finditer(text):
        digits = match[1] + match[3] + match[4]
        if is_ssn(digits):
            yield Span(match.start(), match.end(), Kind.ssn, digits)


def phones(text: str, region: str) -> Iterator[Span]:
    """Telephone numbers that can be, as Google's library knows them.

    Args:
        text: what was said.
        region: the country of numbers without a country code, such as "US".
    """
    import phonenumbers  # noqa: PLC0415  (takes a while, and few redact telephone numbers)

    for start in range(0, len(text), _MOST_CHARACTERS):
        part = text[start : start + _MOST_CHARACTERS]
        leniency = phonenumbers.Leniency.VALID
        for match in phonenumbers.PhoneNumberMatcher(part, region, leniency):
            around = part[max(0, match.start - 1) : match.start], part[match.end : match.end + 1]
            if not _looks_said(match.raw_string) or _is_in_a_table(*around):
                continue
            value = f"{match.number.country_code}{match.number.national_number}"
            yield Span(start + match.start, start + match.end, Kind.phone, value)


def _looks_said(raw: str) -> bool:
    """Digits in a row without any sign may be an order's, so a plus or groups are needed."""
    return bool(_PLUS.match(raw)) or re.search(r"\d[\s().-]+\d", raw) is not None


def _is_in_a_table(before: str, after: str) -> bool:
    """Whether digits and signs go on without a space, as in coordinates and readings."""
    return before in _SIGNS or after in _SIGNS - {".", "-"}
