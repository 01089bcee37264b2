"""Finds what is said aloud: digits as words, and addresses with "at" and "dot"."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from embedding_assets.engine.redaction.numbers import is_card, is_iban, is_north_american, is_ssn
from embedding_assets.engine.redaction.spans import Kind, Span
from embedding_assets.engine.redaction.words import (
    AMOUNTS,
    BETWEEN,
    JOINTS,
    NO_NAMES,
    TEENS,
    TENS,
    TIMES,
    TOP_LEVEL_DOMAINS,
    UNITS,
)

_TOKEN = re.compile(r"[A-Za-z]+|\d+|\+|[^\sA-Za-z\d]")
_QUIET = frozenset(",.-()/–—…:")
_CONTEXT = 80  # characters before a number that may say what it is
_SSN = re.compile(r"social|security|\bssn\b|tax(?:payer)? id", re.IGNORECASE)
_CARD = re.compile(r"\bcard\b|visa|master ?card|amex|credit|debit", re.IGNORECASE)
_PHONE = re.compile(
    r"phone|call|reach|dial|text (?:me|us|her|him)|mobile|cell|\bfax\b|number is|whatsapp",
    re.IGNORECASE,
)
_PLUS = re.compile(r"(?:\bplus|\+)\s*$", re.IGNORECASE)
_COUNTING = "12345678910111213"
_LENGTHS = (7, 9, 10, 11, 12, 13)  # of telephone numbers, where something says that it is one
_PART = r"[A-Za-z0-9]{1,30}"
_JOINT = r"\s+(?:dot|period|underscore|dash|hyphen|plus)\s+"
_SPOKEN_EMAIL = re.compile(
    rf"(?<!\w)(?P<local>(?:[A-Za-z0-9](?:\s+[A-Za-z0-9]){{1,20}}|{_PART})"
    rf"(?:{_JOINT}(?:[A-Za-z0-9](?:\s+[A-Za-z0-9]){{1,20}}|{_PART})){{0,4}})"
    rf"\s+at\s+(?P<domain>{_PART}(?:(?:\s+(?:dash|hyphen)\s+|\s){_PART}){{0,3}}?"
    rf"(?:\s+dot\s+{_PART}){{0,2}}?(?:\s+dot\s+|\.)(?:{'|'.join(TOP_LEVEL_DOMAINS)}))(?!\w)",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"e-?mail|\bmail\b|address|reach|write|send|contact|message|invite|forward|copy|\bcc\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Run:
    """Digits that follow each other, and where."""

    start: int
    end: int
    digits: str
    spoken: int  # how many of the digits are words
    letters: str  # single letters before them
    follows: str  # the word after


def emails(text: str) -> Iterator[Span]:
    """Addresses said aloud: "bob dot jones at acme dot com"."""
    for match in _SPOKEN_EMAIL.finditer(text):
        local = match["local"]
        words = local.lower().split()
        is_joined = re.search(_JOINT, local, re.IGNORECASE) or len(words) > 1
        if not is_joined:
            before = text[max(0, match.start() - _CONTEXT) : match.start()]
            if words[0] in NO_NAMES or not _EMAIL.search(before):
                continue
        yield Span(match.start(), match.end(), Kind.email, _written(match[0]))


def numbers(text: str, kinds: Iterable[Kind]) -> Iterator[Span]:
    """Telephone numbers, cards, accounts and social security numbers read digit by digit."""
    wanted = set(kinds)
    for run in _runs(text):
        if run.spoken * 2 < len(run.digits) or run.follows in AMOUNTS:
            continue
        before = text[max(0, run.start - _CONTEXT) : run.start]
        kind = _kind(run, before)
        if kind is not None and kind in wanted:
            yield Span(run.start, run.end, kind, _value(kind, run))


def _kind(run: _Run, before: str) -> Kind | None:
    digits, length = run.digits, len(run.digits)
    if run.letters and is_iban(run.letters.upper() + digits):
        return Kind.iban
    is_of_a_card = 14 <= length <= 17 and _CARD.search(before)
    if is_card(digits) or is_of_a_card:
        return Kind.card
    if length == 9 and is_ssn(digits) and _SSN.search(before):
        return Kind.ssn
    if _PLUS.search(before) and 8 <= length <= 15:
        return Kind.phone
    is_called = _PHONE.search(before) and digits not in _COUNTING
    return Kind.phone if is_north_american(digits) or (is_called and length in _LENGTHS) else None


def _value(kind: Kind, run: _Run) -> str:
    if kind is Kind.iban:
        return run.letters.upper() + run.digits
    is_local = kind is Kind.phone and len(run.digits) == 10
    return f"1{run.digits}" if is_local else run.digits


def _runs(text: str) -> Iterator[_Run]:
    tokens = list(_TOKEN.finditer(text))
    at = 0
    while at < len(tokens):
        run, at = _run(tokens, at)
        if run is not None:
            yield run


def _run(tokens: Sequence[re.Match[str]], at: int) -> tuple[_Run | None, int]:
    """The run of digits that begins at a token, if one does, and the token after it."""
    letters, first = "", at
    while len(letters) < 2 and at < len(tokens) and re.fullmatch("[A-Za-z]", tokens[at][0]):
        letters += tokens[at][0]
        at += 1
    if _digits(tokens, at) is None:
        return None, first + 1
    if len(letters) < 2:
        letters, first = "", at
    digits, spoken, end = "", 0, at
    while at < len(tokens):
        found = _digits(tokens, at)
        if found is not None:
            value, at = found
            spoken += len(value) if not tokens[at - 1][0].isdecimal() else 0
            digits += value
            end = at
        elif tokens[at][0].lower() in BETWEEN or tokens[at][0] in _QUIET:
            at += 1
        else:
            break
    follows = tokens[end][0].lower() if end < len(tokens) else ""
    run = _Run(tokens[first].start(), tokens[end - 1].end(), digits, spoken, letters, follows)
    return run, end


def _digits(tokens: Sequence[re.Match[str]], at: int) -> tuple[str, int] | None:
    """The digits that a token says, perhaps with those after it, and the token after them."""
    word, following, third = (
        tokens[n][0].lower() if n < len(tokens) else "" for n in range(at, at + 3)
    )
    said: tuple[str, int] | None = None
    if word.isdecimal():
        said = word, 1
    elif word in TIMES and following in UNITS:
        said = UNITS[following] * TIMES[word], 2
    elif word in UNITS:
        said = (UNITS[word] + "00", 2) if following == "hundred" else (UNITS[word], 1)
    elif word in TEENS:
        said = TEENS[word], 1
    elif word in TENS:
        unit = UNITS.get(third if following == "-" else following, "0")
        said = f"{TENS[word]}{unit}", 1 if unit == "0" else 3 if following == "-" else 2
    return None if said is None else (said[0], at + said[1])


def _written(said: str) -> str:
    """The address as it would be written."""
    local, _, domain = re.sub(r"\s+", " ", said.lower()).partition(" at ")
    return "@".join(
        "".join(JOINTS.get(word, word) for word in part.split()) for part in (local, domain)
    )
