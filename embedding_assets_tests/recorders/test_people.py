"""People are joined by their addresses, never by a name alone, and by a person's hand."""

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.recorders.importing import import_meeting
from embedding_assets.recorders.people import list_people, merge, split
from embedding_assets.search.search import Filters, Mode, search
from embedding_assets_tests.calls import Embed, embedder_of
from embedding_assets_tests.loopback_api import LoopbackAPI

ANN, HOME, CEE = "ann@example.org", "ann@home.example", "cee@example.com"


@pytest.fixture
def known(database: Database) -> Database:
    """Ann speaks in one call, records another from home, and is invited to the third."""
    said = [{"speaker": "Ann Bee", "text": "The walrus eats clams."}]
    for number, meeting in enumerate(
        [
            {"invitees": [{"email": CEE, "name": "Cee Dee", "is_external": True}],
             "segments": [{**said[0], "email": ANN}]},
            {"recorded_by": {"email": HOME.upper(), "name": "Ann Bee"}, "segments": said},
            {"invitees": [ANN.upper()], "segments": said},
            {"segments": said},
        ]
    ):  # fmt: skip
        report = import_meeting(database, "s", str(number), {"title": "A call", **meeting})
        assert report.rejected == []
    return database


def by_email(database: Database) -> dict[str, tuple[str | None, int]]:
    return {each.email: (each.name, each.calls) for each in list_people(database)}


def test_an_address_joins_and_a_name_does_not(known: Database) -> None:
    assert by_email(known) == {
        ANN: ("Ann Bee", 2), HOME: ("Ann Bee", 1), CEE: ("Cee Dee", 1),
    }  # fmt: skip
    assert [each.email for each in list_people(known, "HOME")] == [HOME]
    assert [each.email for each in list_people(known, "bee")] == [ANN, HOME]


def test_addresses_are_merged_and_split(known: Database) -> None:
    person = merge(known, ANN, [HOME.upper()])
    assert (person.email, person.aliases, person.calls) == (ANN, (HOME,), 3)
    # What comes later with the other address is hers too.
    report = import_meeting(
        known, "s", "9",
        {"title": "A", "recorded_by": {"email": HOME}, "segments": [{"text": "More."}]},
    )  # fmt: skip
    assert report.imported == 1
    assert by_email(known)[ANN] == ("Ann Bee", 4)
    assert merge(known, HOME, [CEE]).aliases == (HOME, CEE)
    assert split(known, ANN, [HOME, CEE]).aliases == ()
    assert by_email(known) == {
        ANN: ("Ann Bee", 2), HOME: ("Ann Bee", 2), CEE: ("Cee Dee", 1),
    }  # fmt: skip


def test_who_is_not_known_is_named(known: Database) -> None:
    with pytest.raises(InvalidInputError, match="nobody has the address dan@"):
        merge(known, ANN, ["dan@example.org"])
    with pytest.raises(InvalidInputError, match="is no further address of"):
        split(known, ANN, [CEE])
    assert len(by_email(known)) == 3


def test_a_search_for_a_person_finds_all_their_calls(
    known: Database, embed: Embed, api: LoopbackAPI
) -> None:
    embed()

    def found(**filters: object) -> list[str]:
        answer = search(
            known,
            embedder_of(api),
            "walrus",
            mode=Mode.keyword,
            filters=Filters(**filters),  # type: ignore[arg-type]
        )
        return sorted({hit.recording_id for hit in answer.hits})

    assert found(people=[ANN]) == ["s-0", "s-2"]
    assert found(people=[HOME.upper()]) == ["s-1"]
    merge(known, HOME, [ANN])
    assert found(people=[ANN]) == found(people=[HOME]) == ["s-0", "s-1", "s-2"]
    assert found(not_people=[HOME]) == ["s-3"]
    assert found(people=[HOME, CEE], not_people=[CEE]) == ["s-1", "s-2"]
    assert found(people=["dan@example.org"]) == []
