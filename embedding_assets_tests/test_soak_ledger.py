"""How a soak compares the ledger with the server's count: kills explain so much, and no more."""

import pytest

from embedding_assets.engine.database import Database
from embedding_assets_tests.soak.ledger import Answer, Death, balance

# Two texts of one recording, one of another, one of both.
OF = {"a1": {"a"}, "a2": {"a"}, "b1": {"b"}, "ab": {"a", "b"}}
ASKED = [Answer(10.0, {"a1": 3, "b1": 4}), Answer(20.0, {"a2": 5})]


def pay(database: Database, recording_id: str, *, texts: int, requests: int, tokens: int) -> None:
    """Writes an attempt down."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome,"
            " embedded, requests, tokens, seconds)"
            " VALUES (gen_random_uuid(), %s, 'run', 'standard', 'published', %s, %s, %s, 1)",
            [recording_id, texts, requests, tokens],
        )


def test_all_that_was_answered_is_written_down(database: Database) -> None:
    pay(database, "a", texts=2, requests=2, tokens=8)
    pay(database, "b", texts=1, requests=0, tokens=4)

    found = balance(database, ASKED, OF, [], [])

    assert found.amiss == []
    assert (found.server_requests, found.server_tokens) == (2, 12)
    assert (found.ledger_requests, found.ledger_tokens) == (2, 12)
    assert (found.lost_requests_at_most, found.lost_tokens_at_most) == (0, 0)


def test_what_nobody_was_killed_for_must_not_be_missing(database: Database) -> None:
    pay(database, "a", texts=1, requests=1, tokens=3)
    pay(database, "b", texts=1, requests=0, tokens=4)

    found = balance(database, ASKED, OF, [], [])

    assert len(found.amiss) == 3  # the requests, the tokens, the texts of one recording
    assert "a: 2 texts were answered, 1 are in the ledger" in found.amiss


def test_a_killed_run_explains_what_it_held_since_it_claimed_it(database: Database) -> None:
    pay(database, "a", texts=1, requests=1, tokens=3)
    pay(database, "b", texts=1, requests=0, tokens=4)
    death = Death("run", since=15.0, until=21.0, held=frozenset("a"))

    found = balance(database, ASKED, OF, [], [death])

    assert found.amiss == []
    assert (found.lost_requests_at_most, found.lost_tokens_at_most) == (
        1,
        5 + 1,
    )  # a share's rounding


@pytest.mark.parametrize(
    "death",
    [
        Death("run", since=15.0, until=21.0, held=frozenset("b")),
        Death("run", since=21.0, until=25.0, held=frozenset("a")),
        Death("run", since=5.0, until=15.0, held=frozenset("b")),
    ],
)
def test_a_killed_run_explains_nothing_else(database: Database, death: Death) -> None:
    pay(database, "a", texts=1, requests=1, tokens=3)
    pay(database, "b", texts=1, requests=0, tokens=4)

    assert balance(database, ASKED, OF, [], [death]).amiss


def test_more_in_the_ledger_than_was_answered_is_amiss(database: Database) -> None:
    pay(database, "a", texts=3, requests=2, tokens=9)
    pay(database, "b", texts=1, requests=0, tokens=4)
    death = Death("run", since=0.0, until=99.0, held=frozenset("ab"))

    assert len(balance(database, ASKED, OF, [], [death]).amiss) == 2


def test_searches_are_counted_apart_and_texts_of_nobody_are_amiss(database: Database) -> None:
    answers = [Answer(1.0, {"question": 2}), Answer(2.0, {"never seen": 1})]

    found = balance(database, answers, OF, ["question"], [])

    assert found.search_requests == 1
    assert found.amiss[0] == "1 texts were asked for that no recording ever had"


def test_a_text_of_two_recordings_is_charged_to_one(database: Database) -> None:
    pay(database, "b", texts=1, requests=1, tokens=7)

    assert balance(database, [Answer(1.0, {"ab": 7})], OF, [], []).amiss == []
