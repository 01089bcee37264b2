"""What makes a row of digits a number of a card, an account or a person."""

import re

_PREFIXES = re.compile(r"3[47]|30[0-5]|3[68]|4|5[1-5]|2[2-7]|6")  # of the card networks
_AREA = re.compile(r"1?[2-9]\d{2}[2-9]\d{6}")  # of a number in North America
_LETTERS = str.maketrans({chr(ord("A") + n): str(10 + n) for n in range(26)})


def is_card(digits: str) -> bool:
    """Whether it is a card's number: prefix, length and check digit (Luhn, ISO/IEC 7812)."""
    if not 13 <= len(digits) <= 19 or not _PREFIXES.match(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Whether it is an account's number: form and check digits (ISO 13616, modulo 97)."""
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", text):
        return False
    return int((text[4:] + text[:4]).translate(_LETTERS)) % 97 == 1


def is_ssn(digits: str) -> bool:
    """Whether it may be a social security number of the United States."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return (
        len(digits) == 9
        and area not in {"000", "666"}
        and area < "900"
        and group != "00"
        and serial != "0000"
    )


def is_north_american(digits: str) -> bool:
    """Whether it may be a telephone number of the North American numbering plan."""
    return _AREA.fullmatch(digits) is not None
