"""What identifies people is found, written and said; what only looks like it stays."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.model import Segment
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.rechunking import cut_otherwise
from embedding_assets.engine.redaction.redactor import (
    Redaction,
    Redactor,
    find,
    parse_redaction,
)
from embedding_assets.engine.redaction.spans import Kind, Span
from embedding_assets.engine.transcripts import Call, _redacted
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, embedder_of, rows
from embedding_assets_tests.loopback_api import LoopbackAPI

ALL = Redaction(tuple(Kind))
TEXTS = Path(__file__).with_name("redaction_texts.txt")
_MARK = re.compile(r"\{\{(\w+):(.*?)\}\}")


@dataclass(frozen=True)
class Labelled:
    """A sentence, and what in it is to be found."""

    text: str
    spans: tuple[Span, ...]


def labelled(*, is_held_out: bool) -> list[Labelled]:
    lines = [line for line in TEXTS.read_text().splitlines() if not line.startswith("#")]
    cut = lines.index("---")
    chosen = lines[cut + 1 :] if is_held_out else lines[:cut]
    found = []
    for line in chosen:
        text, spans, at = "", [], 0
        for match in _MARK.finditer(line):
            text += line[at : match.start()]
            spans.append(Span(len(text), len(text) + len(match[2]), Kind(match[1]), ""))
            text, at = text + match[2], match.end()
        found.append(Labelled(text + line[at:], tuple(spans)))
    return found


def score(texts: list[Labelled]) -> tuple[float, float, list[str]]:
    """Precision and recall of kinds at places, and what went wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for each in texts:
        spans = find(each.text, ALL)
        left = list(spans)
        for wanted in each.spans:
            hit = next((s for s in left if s.kind is wanted.kind
                        and s.start <= wanted.start and s.end >= wanted.end), None)  # fmt: skip
            counts["hit" if hit else "missed"] += 1
            if hit:
                left.remove(hit)
            else:
                wrong.append(f"missed: {each.text}")
        counts["false"] += len(left)
        wrong += [f"false {s.kind}: {each.text[s.start : s.end]!r} in {each.text}" for s in left]
    precision = counts["hit"] / max(1, counts["hit"] + counts["false"])
    return precision, counts["hit"] / max(1, counts["hit"] + counts["missed"]), wrong


@pytest.mark.parametrize("is_held_out", [False, True])
def test_what_is_found_is_right_and_what_is_there_is_found(*, is_held_out: bool) -> None:
    precision, recall, wrong = score(labelled(is_held_out=is_held_out))
    assert precision >= 0.97, wrong
    assert recall >= 0.9, wrong


def test_a_value_has_one_number_in_its_call_however_it_is_written_or_said() -> None:
    redactor = Redactor(ALL)
    said = [
        "Write to bob.jones@acme.com, or to support@acme.com.",
        "That is Bob dot Jones at acme dot com, and my number is 415-555-0132.",
        "Again: four one five, five five five, oh one three two.",
    ]
    assert [redactor.redact(each) for each in said] == [
        "Write to [email 1], or to [email 2].",
        "That is [email 1], and my number is [phone 1].",
        "Again: [phone 1].",
    ]
    # Another call counts anew: nothing joins two calls.
    assert Redactor(ALL).redact("To support@acme.com.") == "To [email 1]."


def test_only_what_is_named_is_replaced() -> None:
    text = "Write to bob@acme.com or call 415-555-0132."
    phones = Redaction((Kind.phone,))
    assert Redactor(phones).redact(text) == "Write to bob@acme.com or call [phone 1]."
    british = Redaction((Kind.phone,), "GB")
    assert Redactor(british).redact("Call 020 7946 0958 now.") == "Call [phone 1] now."
    assert Redactor(phones).redact("Call 020 7946 0958 now.") == "Call 020 7946 0958 now."


@pytest.mark.parametrize(
    ("kinds", "region", "message"),
    [("email,name", "US", "REDACT: name is not known"), ("phone", "Mars", "REDACT_REGION is Mars")],
)
def test_a_setting_that_is_wrong_is_named(kinds: str, region: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_redaction(kinds, region)


def test_nothing_is_redacted_where_nothing_is_named() -> None:
    assert parse_redaction(" , ", "US") is None
    named = parse_redaction(" Phone,email ", "US")
    assert named is not None
    assert (named.kinds, named.name) == ((Kind.phone, Kind.email), "email,phone (US)")


PIECES = [*"abc 019@.,-+()", " one ", " five ", " dot ", " at ", "com", "é"]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=200).map("".join))
def test_no_text_breaks_it_and_what_is_left_is_as_it_was(text: str) -> None:
    spans = find(text, ALL)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    redacted = Redactor(ALL).redact(text)
    kept, at = [], 0
    for span in spans:
        kept.append(text[at : span.start])
        at = span.end
    kept.append(text[at:])
    at = 0
    for part in kept:
        assert part in redacted[at:]
        at += len(part)


@pytest.mark.parametrize("text", ["four one one one ²", "card ٤١١١ four one ¹²³", "①②③ five five"])
def test_signs_that_are_no_digits_are_none(text: str) -> None:
    find(text, ALL)


def test_who_is_called_by_an_address_or_a_number_is_redacted_as_speaker() -> None:
    call = Call(None, None, None, None, None, None)
    segments = [Segment(0, "bob@acme.com", "Hello."), Segment(1, "+1 415-555-0132", "Hi, Bob.")]
    _, said = _redacted(call, segments, Redactor(ALL))
    assert [each.speaker for each in said] == ["[email 1]", "[phone 1]"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{n}@b.com " for n in range(40_000)),
        "a " * 100_000, "one " * 100_000, "1" * 100_000, "1 " * 50_000, "a@" * 50_000,
        "x dot " * 50_000, "a at b " * 30_000, "DE89 " * 20_000, "(415) " * 20_000, "." * 200_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_a_long_text_takes_no_long_time(text: str) -> None:
    find(text, ALL)


def test_a_change_of_the_setting_embeds_the_chunks_that_differ_and_no_others(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", ["The walrus eats clams. " * 4, "Call me at 415-555-0132. " * 4])
        add_call(connection, "b", ["Nothing of the kind is said here. " * 4])
    embed()
    before = api.stats.answered, sum(api.stats.inputs.values())
    redacting = replace(CHUNKING, redaction=Redaction((Kind.phone,)))
    with database.transaction(snapshot=True) as connection:
        other = cut_otherwise(connection, redacting)
        queue_again = list(other.recording_ids)
    assert queue_again == ["a", "b"]
    with database.transaction() as connection:
        connection.execute("SELECT enqueue_recordings(%s)", [queue_again])
    claims = Claims(database, "again", timedelta(minutes=5))
    outcomes = list(EmbeddingRun(database, embedder_of(api), redacting, claims).embed(claims.due()))
    assert {each.recording_id: each.figures.embedded > 0 for each in outcomes} == {
        "a": True, "b": False,
    }  # fmt: skip
    assert sum(api.stats.inputs.values()) > before[1]
    texts = str(rows(database, "SELECT chunk_text FROM transcript_chunks"))
    assert "[phone 1]" in texts
    assert "0132" not in texts
    assert "0132" not in str(rows(database, "SELECT words FROM chunk_words"))
    # The transcript itself stays.
    assert "415-555-0132" in str(rows(database, "SELECT text FROM fathom_transcripts"))
    with database.transaction(snapshot=True) as connection:
        assert cut_otherwise(connection, redacting).recording_ids == ()
