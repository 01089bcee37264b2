"""A person's edits stay with the words they were made on, whatever the recorder sends later."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_assets.engine.database import Database
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.edits import Stored, carried_over
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.upsert import upsert
from embedding_assets_tests.calls import rows

SECRET = "The account number of the customer is four seven one one."
TURNS = [
    "Good morning everybody and welcome to the depot audit.",
    "Thank you, shall we begin with the first row of pallets?",
    SECRET,
    "I will write that down and send it to the office.",
    "Then we go on with the second row, which is longer.",
]


def call(*texts: str) -> Recording:
    segments = [Segment(n, ("Ann", "Cee")[n % 2], text, n * 5.0) for n, text in enumerate(texts)]
    return Recording("a", "A call", segments, "import")


def visible(database: Database) -> str:
    """What is embedded of the call."""
    query = """
        SELECT coalesce(edited_text, text) FROM fathom_transcripts
        WHERE NOT is_deleted ORDER BY position
    """
    return "\n".join(text for (text,) in rows(database, query))


@pytest.fixture
def redacted(database: Database) -> Database:
    """A call of which a person deleted a turn and corrected another."""
    upsert(database, call(*TURNS))
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET is_deleted = true WHERE position = 2")
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'I shall note it for the office.'"
            " WHERE position = 3"
        )
    return database


@pytest.mark.parametrize(
    "again",
    [
        ["A turn in front that was not there before.", *TURNS],
        TURNS[1:],
        [*TURNS[:2], "One more in between.", *TURNS[2:]],
        [" ".join(TURNS[:2]), *TURNS[2:]],
        [TURNS[0], f"{TURNS[1]} {SECRET}", *TURNS[3:]],
        [*TURNS[:2], SECRET[:30], SECRET[30:], *TURNS[3:]],
        [*TURNS[:2], SECRET.lower().replace(".", "!"), *TURNS[3:]],
    ],
    ids=["in front", "first gone", "between", "joined before", "joined", "split", "case"],
)
def test_what_was_redacted_stays_so_and_nothing_else_is(
    redacted: Database, again: list[str]
) -> None:
    outcome = upsert(redacted, call(*again))
    shown = visible(redacted)
    assert "four seven one one" not in shown.lower()
    assert "I shall note it for the office." in shown
    assert TURNS[3] not in shown
    assert TURNS[4] in shown
    assert not any("edits were made" in reason for _, reason in outcome.remarks)


def test_what_cannot_be_matched_is_kept_and_told(redacted: Database) -> None:
    outcome = upsert(redacted, call(*TURNS[:2], "Something else altogether was heard.", TURNS[4]))
    assert any("2 edits were made on words that are not in it" in r for _, r in outcome.remarks)
    kept = rows(redacted, "SELECT position, text, edited_text, is_deleted FROM unmatched_edits")
    assert kept == [
        (2, SECRET, None, True),
        (3, TURNS[3], "I shall note it for the office.", False),
    ]


def test_a_short_redaction_does_not_fall_on_another_yes(database: Database) -> None:
    upsert(database, call("Yes.", "Shall we begin with the row?", "Yes.", "Then we begin now."))
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_transcripts SET is_deleted = true WHERE position = 2")
    upsert(
        database,
        call(
            "A turn in front.", "Yes.", "Shall we begin with the row?", "Yes.", "Then we begin now."
        ),
    )
    deleted = rows(database, "SELECT position FROM fathom_transcripts WHERE is_deleted")
    assert deleted == [(3,)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(TURNS), min_size=1, max_size=8),
    st.lists(st.sampled_from(TURNS), max_size=8),
    st.data(),
)
def test_an_edit_is_matched_or_told_and_never_doubled(
    before: list[str], after: list[str], data: st.DataObject
) -> None:
    edited = data.draw(st.sets(st.integers(0, len(before) - 1)))
    stored = [Stored(Segment(n, None, text), None, n in edited) for n, text in enumerate(before)]
    edits, lost = carried_over(stored, [Segment(n, None, text) for n, text in enumerate(after)])
    assert len(lost) <= len(edited)
    assert len(edits) <= len(edited)
    assert len(edits) + len(lost) >= (1 if edited else 0)
    for position, edit in edits.items():
        assert edit.is_deleted or edit.edited_text is not None
        assert after[position] in {before[n] for n in edited}


def test_the_same_transcript_again_changes_nothing(redacted: Database) -> None:
    before = visible(redacted)
    outcome = upsert(redacted, replace(call(*TURNS), title="A call"))
    assert outcome.upserted == "unchanged"
    assert visible(redacted) == before
