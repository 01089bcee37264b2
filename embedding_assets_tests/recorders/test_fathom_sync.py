"""That what Fathom has is here, whatever its pages, its limits and its faults do meanwhile."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.health.findings import Finding, Severity
from embedding_assets.health.recorders import measure_keys, recorder_sync
from embedding_assets.recorders.importing import import_document
from embedding_assets.recorders.sync.api import FathomAPI, Page
from embedding_assets.recorders.sync.fathom import SyncReport, forget_key, synchronise
from embedding_assets.recorders.sync.keys import Key, parse_keys
from embedding_assets.recorders.sync.options import Options
from embedding_assets.recorders.sync.windows import walk
from embedding_assets_tests.calls import rows
from embedding_assets_tests.loopback_fathom import Limits, LoopbackFathom, transcript

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ANN, BOB = Key("ann", SecretStr("ann-secret")), Key("bob", SecretStr("bob-secret"))
WORDS = "The depot is audited today. We count the pallets. Nothing is missing."


@pytest.fixture
def fathom() -> Iterator[LoopbackFathom]:
    with LoopbackFathom(["ann-secret", "bob-secret"]) as fathom:
        fathom.now = NOW
        yield fathom


def options(fathom: LoopbackFathom, **others: Any) -> Options:
    return Options(base_url=fathom.base_url, since=date(2026, 1, 1), **others)


def sync(
    database: Database,
    fathom: LoopbackFathom,
    *keys: Key,
    told: list[str] | None = None,
    **others: Any,
) -> SyncReport:
    return synchronise(
        database,
        keys or (ANN,),
        options(fathom, **others),
        now=lambda: fathom.now,
        tell=(lambda _: None) if told is None else told.append,
    )


def check(database: Database, fathom: LoopbackFathom, *names: str) -> Finding:
    with database.transaction(snapshot=True) as connection:
        return recorder_sync(measure_keys(connection), names or ("ann",), fathom.now)


def texts(database: Database, recording_id: str) -> list[str]:
    query = "SELECT text FROM fathom_transcripts WHERE recording_id = %s ORDER BY position"
    return [text for (text,) in rows(database, query, [recording_id])]


def calls(database: Database) -> list[str]:
    return [id_ for (id_,) in rows(database, "SELECT recording_id FROM fathom_calls ORDER BY 1")]


def test_everything_is_here_with_people_and_access(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(43):
        fathom.add(f"{100 + number}", NOW - DAY * (number + 1), WORDS)
    report = sync(database, fathom)
    assert (report.is_current, len(report.keys[0].changed)) == (True, 43)
    assert len(calls(database)) == 43
    assert texts(database, "100") == WORDS.split(". ")
    assert rows(
        database,
        "SELECT team, shared_with, language, awaits_transcript FROM call_details"
        " WHERE recording_id = '100'",
    ) == [("Sales", ["team"], "en", False)]
    assert rows(
        database,
        "SELECT role, email, is_external FROM call_people WHERE recording_id = '100' ORDER BY 1, 2",
    ) == [
        ("invitee", "ann@example.org", False),
        ("invitee", "cee@example.com", True),
        ("recorded_by", "ann@example.org", None),
        ("speaker", "ann@example.org", None),
        ("speaker", "cee@example.com", None),
    ]
    assert rows(database, "SELECT DISTINCT user_id FROM fathom_calls") == [("ann@example.org",)]
    found = check(database, fathom)
    assert (found.severity, found.figures["there"], found.figures["here"]) == (
        Severity.HEALTHY, 43, 43,
    )  # fmt: skip
    assert found.items == (
        "ann: the recorder has 43, here are 43; last complete 2026-03-20 12:00 UTC, last read"
        " 2026-03-20 12:00 UTC",
    )
    assert sync(database, fathom).keys[0].changed == set()


def test_a_second_that_holds_more_than_a_page(database: Database, fathom: LoopbackFathom) -> None:
    moment = NOW - 3 * DAY
    for number in range(37):
        fathom.add(f"{100 + number}", moment + timedelta(microseconds=number * 1000), WORDS)
    fathom.add("200", NOW - 2 * DAY, WORDS)
    assert sync(database, fathom).is_current
    assert len(calls(database)) == 38


def test_a_deletion_while_pages_are_read_skips_nothing(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(60):
        fathom.add(f"{100 + number}", NOW - HOUR * (number + 1), WORDS)
    doomed = iter(["159", "158", "157", "100", "101", "130"])

    def delete() -> None:
        with fathom.lock:
            fathom.meetings.pop(next(doomed, ""), None)

    fathom.after_page = delete
    sync(database, fathom)
    assert set(calls(database)) >= set(fathom.meetings)
    assert next(doomed, None) is None


@pytest.mark.parametrize("at_once", [False, True])
def test_one_walk_alone_skips_nothing_that_was_there_all_the_time(
    fathom: LoopbackFathom, *, at_once: bool
) -> None:
    """Without the listing, which would find later what the windows skip."""
    for number in range(60):
        # With `at_once`, all in one second, which is paged.
        age = timedelta(milliseconds=number) if at_once else HOUR * number
        fathom.add(f"{100 + number}", NOW - DAY - age, WORDS)
    doomed = iter([f"{100 + number}" for number in range(7)])
    cursors: list[str] = []

    def delete() -> None:
        """While pages are read, the newest goes, and all others move up."""
        if "cursor" in fathom.last_query:
            cursors.append(fathom.last_query["cursor"])
            with fathom.lock:
                fathom.meetings.pop(next(doomed, ""), None)

    fathom.after_page = delete
    with FathomAPI(ANN.secret, fathom.base_url) as api:

        def ask(after: datetime, before: datetime, cursor: str | None) -> Page:
            deadline = time.monotonic() + 60
            return api.meetings(after, before, cursor, with_transcripts=False, deadline=deadline)

        windows = list(walk(ask, NOW - 10 * DAY, NOW))
    read = {str(each["recording_id"]) for window in windows for each in window.meetings}
    assert read >= set(fathom.meetings)
    assert [each.start for each in windows[1:]] == [each.end for each in windows[:-1]]
    assert bool(cursors) is at_once


def test_a_bad_meeting_leaves_the_others_of_its_page(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(8):
        fathom.add(f"{100 + number}", NOW - HOUR * (number + 1), WORDS)
    fathom.add("101", NOW - 2 * HOUR, WORDS, recording_id=None)
    fathom.add("102", NOW - 3 * HOUR, WORDS, title=None, calendar_invitees=None, recorded_by=None)
    fathom.add("103", NOW - 4 * HOUR, WORDS, meeting_type="quantum", shared_with={"odd": 1})
    fathom.meetings["104"].transcript = "internal server error"
    told: list[str] = []
    report = sync(database, fathom, told=told)
    assert calls(database) == ["100", "102", "103", "104", "105", "106", "107"]
    assert len(report.keys[0].unreadable) == 1
    assert any("could not be read: recording_id: is null, not text" in line for line in told)
    found = check(database, fathom)
    assert found.severity is Severity.WARNING
    assert (found.figures["there"], found.figures["here"], found.figures["unreadable"]) == (8, 7, 1)
    assert "1 meeting could not be read" in found.message
    assert found.figures["waiting_for_transcripts"] == 1


def test_a_late_transcript_comes_with_the_next_run_and_an_edit_within_the_hour(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.add("100", NOW - HOUR, None)
    fathom.add("101", NOW - 3 * DAY, WORDS)
    sync(database, fathom)
    assert (texts(database, "100"), calls(database)) == ([], ["100", "101"])
    assert "(1 of them wait for their transcripts)" in check(database, fathom).items[0]
    fathom.meetings["100"].transcript = transcript(WORDS)
    fathom.meetings["101"].transcript = transcript(WORDS.replace("pallets", "crates"))
    fathom.now += timedelta(minutes=15)
    sync(database, fathom)
    assert texts(database, "100") == WORDS.split(". ")
    assert "pallets" in texts(database, "101")[1]
    fathom.now += timedelta(minutes=46)
    sync(database, fathom)
    assert "crates" in texts(database, "101")[1]


@pytest.mark.parametrize("less", [None, [], "an error", [{"text": " ", "speaker": {}}]])
def test_a_good_transcript_is_never_replaced_by_less(
    database: Database, fathom: LoopbackFathom, less: Any
) -> None:
    fathom.add("100", NOW - HOUR, WORDS)
    sync(database, fathom)
    fathom.meetings["100"].transcript = less
    fathom.now += 2 * HOUR
    told: list[str] = []
    sync(database, fathom, told=told)
    assert texts(database, "100") == WORDS.split(". ")
    assert any("the stored one was kept" in line for line in told)
    assert check(database, fathom).figures["waiting_for_transcripts"] == 0


def test_keys_see_different_calls_and_a_refused_one_stops_nobody(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(12):
        seen_by = {0: {"ann-secret"}, 1: {"bob-secret"}, 2: set[str]()}[number % 3]
        fathom.add(f"{100 + number}", NOW - HOUR * (number + 1), WORDS, seen_by=seen_by)
    assert sync(database, fathom, ANN, BOB).is_current
    assert len(calls(database)) == 12
    found = check(database, fathom, "ann", "bob")
    assert (found.severity, found.figures["there"]) == (Severity.HEALTHY, 16)

    fathom.refused = {"bob-secret"}
    fathom.now += DAY
    fathom.add("200", fathom.now - HOUR, WORDS, seen_by=["ann-secret"])
    told: list[str] = []
    report = sync(database, fathom, ANN, BOB, told=told)
    assert report.is_current
    assert {each.name: each.is_refused for each in report.keys} == {"ann": False, "bob": True}
    assert "200" in calls(database)
    fathom.now += DAY
    sync(database, fathom, ANN, BOB)
    found = check(database, fathom, "ann", "bob")
    assert found.severity is Severity.WARNING
    assert "key bob: refused since Saturday, 2026-03-21 12:00 UTC" in found.message
    assert not any("secret" in line for line in [*told, found.message, *found.items])

    fathom.refused = {"ann-secret", "bob-secret"}
    report = sync(database, fathom, ANN, BOB)
    assert not report.is_current
    assert check(database, fathom, "ann", "bob").severity is Severity.CRITICAL
    fathom.refused = set()
    assert sync(database, fathom, ANN, BOB).is_current
    assert check(database, fathom, "ann", "bob").severity is Severity.HEALTHY


@pytest.mark.parametrize("withdraws", [False, True])
def test_a_meeting_is_gone_after_two_listings_without_it(
    database: Database, fathom: LoopbackFathom, *, withdraws: bool
) -> None:
    for number in range(12):
        fathom.add(f"{100 + number}", NOW - 20 * DAY - HOUR * number, WORDS)
    fathom.add("200", NOW - 20 * DAY, WORDS, seen_by=["ann-secret"])
    sync(database, fathom, ANN, BOB, withdraws=withdraws)
    gone = {id_: fathom.meetings.pop(id_) for id_ in ("103", "104", "200")}
    fathom.meetings["104"] = replace(gone["104"], seen_by=frozenset({"bob-secret"}))
    for night in range(2):
        assert {"103", "104", "200"} <= set(calls(database)), night
        fathom.now += DAY
        sync(database, fathom, ANN, BOB, withdraws=withdraws)
    # Bob still sees 104, so it is not gone.
    left = set(calls(database))
    assert {"103", "200"} & left == (set() if withdraws else {"103", "200"})
    assert "104" in left
    found = check(database, fathom, "ann", "bob")
    assert (found.severity, found.figures["gone"], found.figures["there"]) == (
        Severity.HEALTHY, 1 if withdraws else 4, 21,
    )  # fmt: skip
    # What comes back is here again.
    fathom.meetings["103"] = gone["103"]
    fathom.now += DAY
    sync(database, fathom, ANN, BOB, withdraws=withdraws)
    assert "103" in calls(database)
    assert check(database, fathom, "ann", "bob").figures["there"] == 23
    if withdraws:
        queued = dict(rows(database, "SELECT recording_id, status FROM embedding_queue"))
        assert "200" not in calls(database)
        assert "103" in queued
        assert rows(database, "SELECT 1 FROM call_people WHERE recording_id = '200'") == []


def test_that_many_are_gone_at_once_is_not_believed_without_a_person(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(40):
        fathom.add(f"{100 + number}", NOW - 20 * DAY - HOUR * number, WORDS)
    sync(database, fathom, withdraws=True)
    for number in range(30):
        del fathom.meetings[f"{100 + number}"]
    for _ in range(3):
        fathom.now += DAY
        told: list[str] = []
        sync(database, fathom, withdraws=True, told=told)
    assert len(calls(database)) == 40
    assert any("30 of 40 meetings are missing at the recorder" in line for line in told)
    found = check(database, fathom)
    assert found.severity is Severity.WARNING
    assert "30 meetings missing at the recorder" in found.message
    sync(database, fathom, withdraws=True, believes=True)
    assert len(calls(database)) == 10
    assert check(database, fathom).severity is Severity.HEALTHY


def test_the_nightly_list_finds_what_no_window_showed(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.add("100", NOW - HOUR, WORDS)
    sync(database, fathom)
    # Shared with Ann only now, and of long ago.
    fathom.add("200", NOW - 60 * DAY, WORDS)
    sync(database, fathom)
    assert calls(database) == ["100"]
    fathom.now += DAY
    sync(database, fathom)
    assert calls(database) == ["100", "200"]
    # Deleted here by accident: it comes again.
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = '100'")
    assert "1 meeting not here" in check(database, fathom).message
    fathom.now += DAY
    sync(database, fathom)
    assert calls(database) == ["100", "200"]


def test_an_edit_of_long_ago_is_read_when_asked_for(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.add("100", NOW - 40 * DAY, WORDS)
    sync(database, fathom)
    fathom.meetings["100"].transcript = transcript(WORDS.replace("pallets", "crates"))
    fathom.now += DAY
    sync(database, fathom)
    assert "pallets" in texts(database, "100")[1]
    sync(database, fathom, again_from=NOW - 50 * DAY)
    assert "crates" in texts(database, "100")[1]


def test_both_limits_are_waited_for_and_no_request_is_wasted(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.limits = Limits(with_transcripts=5, without=60, minute=0.4)
    for number in range(60):
        fathom.add(f"{100 + number}", NOW - HOUR * (number + 1), WORDS)
    assert sync(database, fathom).is_current
    assert len(calls(database)) == 60
    assert fathom.answered["limited"] == 0


def test_a_limit_longer_than_the_run_ends_it_and_the_next_goes_on(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.limits = Limits(with_transcripts=12, without=60, minute=2.0)
    for number in range(70):
        fathom.add(f"{100 + number}", NOW - DAY * number - HOUR, WORDS)
    report = sync(database, fathom, budget=timedelta(seconds=0.5))
    assert not report.is_current
    assert "the next run goes on" in (report.keys[0].problem or "")
    before = calls(database)
    assert 0 < len(before) < 70
    found = check(database, fathom)
    assert "read for the first time, and has come to 2026-" in found.message
    assert found.figures["here"] == len(before)
    asked = fathom.answered["ann-secret"]
    fathom.limits = Limits(with_transcripts=1000, without=1000, minute=1.0)
    assert sync(database, fathom).is_current
    assert len(calls(database)) == 70
    assert fathom.answered["ann-secret"] - asked < 40  # the rest, and one listing


@pytest.mark.parametrize(
    "failure", [500, 503, b"<html>", b'{"items": 3}', b"[]", b'{"items": [], ']
)
def test_a_server_that_fails_for_a_while_is_asked_again(
    database: Database, fathom: LoopbackFathom, failure: Any
) -> None:
    fathom.add("100", NOW - HOUR, WORDS)
    fathom.failures = [failure, failure]
    assert sync(database, fathom).is_current
    assert calls(database) == ["100"]


def test_what_the_server_says_of_a_wrong_address_is_told(
    database: Database, fathom: LoopbackFathom
) -> None:
    report = synchronise(
        database, [ANN], replace(options(fathom), base_url=f"{fathom.base_url}/v2")
    )
    assert "FATHOM_BASE_URL" in (report.keys[0].problem or "")
    with pytest.raises(ConfigurationError, match="FATHOM_BASE_URL"):
        synchronise(database, [ANN], replace(options(fathom), base_url="fathom"))


def test_keys_have_names_and_no_message_holds_a_secret() -> None:
    keys = parse_keys(" ann=abc bob@example.org=d=ef,\n cee=x ")
    assert [(each.name, each.secret.get_secret_value()) for each in keys] == [
        ("ann", "abc"), ("bob@example.org", "d=ef"), ("cee", "x"),
    ]  # fmt: skip
    for setting in (
        "topsecret",
        "ann=",
        "=topsecret",
        "a b=topsecret",
        "ann=tøpsecret",
        "dG9wc2VjcmV0==",
    ):
        with pytest.raises(
            ConfigurationError, match="part 1 is not of the form name=key"
        ) as raised:
            parse_keys(setting)
        assert "secret" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="two keys have the name ann"):
        parse_keys("ann=x ann=topsecret")


def test_without_keys_the_check_says_that_nothing_is_synchronised(database: Database) -> None:
    with database.transaction(snapshot=True) as connection:
        found = recorder_sync(measure_keys(connection), (), NOW)
        never = recorder_sync(measure_keys(connection), ("ann",), NOW)
    assert (found.severity, "FATHOM_API_KEYS is not set" in found.message) == (
        Severity.HEALTHY, True,
    )  # fmt: skip
    assert never.severity is Severity.WARNING


def test_a_synchronisation_that_stopped_is_seen(database: Database, fathom: LoopbackFathom) -> None:
    fathom.add("100", NOW - HOUR, WORDS)
    sync(database, fathom)
    fathom.now += 2 * HOUR
    found = check(database, fathom)
    assert found.severity is Severity.WARNING
    assert "key ann: not read since 2026-03-20 12:00 UTC" in found.message
    fathom.now += DAY
    assert check(database, fathom).severity is Severity.CRITICAL


def test_a_withdrawn_call_that_somebody_imports_again_stays(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.add("100", NOW - 20 * DAY, WORDS)
    sync(database, fathom, withdraws=True)
    document = {**fathom.meetings["100"].document, "transcript": transcript(WORDS)}
    del fathom.meetings["100"]
    for _ in range(2):
        fathom.now += DAY
        sync(database, fathom, withdraws=True)
    assert calls(database) == []
    import_document(database, document, "a file that was kept")
    fathom.now += DAY
    sync(database, fathom, withdraws=True)
    assert calls(database) == ["100"]


def test_nothing_is_withdrawn_for_what_a_forgotten_or_a_new_key_sees(
    database: Database, fathom: LoopbackFathom
) -> None:
    fathom.add("100", NOW - 20 * DAY, WORDS)
    fathom.add("101", NOW - 20 * DAY, WORDS)
    sync(database, fathom, ANN, BOB)
    fathom.meetings["100"] = replace(fathom.meetings["100"], seen_by=frozenset({"bob-secret"}))
    for _ in range(2):
        fathom.now += DAY
        sync(database, fathom, ANN, BOB, withdraws=True)
    assert calls(database) == ["100", "101"]
    forget_key(database, "bob")
    sync(database, fathom, ANN, withdraws=True)
    assert calls(database) == ["100", "101"]
    # Of 101, Ann knows that it is gone; Bob's key is new again and has not said what it sees.
    fathom.meetings["101"] = replace(fathom.meetings["101"], seen_by=frozenset({"bob-secret"}))
    fathom.now += DAY
    sync(database, fathom, ANN)
    fathom.now += DAY
    sync(database, fathom, ANN)
    fathom.limits = Limits(with_transcripts=0, without=10**6, minute=60.0)
    report = sync(database, fathom, ANN, BOB, withdraws=True, budget=timedelta(seconds=0.5))
    assert report.withdrawn == []
    fathom.limits = Limits(with_transcripts=10**6, without=10**6)
    sync(database, fathom, ANN, BOB, withdraws=True)
    assert calls(database) == ["100", "101"]


def test_what_is_new_does_not_wait_for_what_waits(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(50):
        fathom.add(f"{100 + number}", NOW - timedelta(minutes=20 * number + 70), None)
    sync(database, fathom)
    fathom.add("200", NOW + timedelta(minutes=5), WORDS)
    fathom.now += timedelta(minutes=15)
    fathom.limits = Limits(with_transcripts=5, without=60, minute=60.0)
    report = sync(database, fathom, budget=timedelta(seconds=1))
    assert "the next run goes on" in (report.keys[0].problem or "")
    assert "200" in calls(database)
    assert report.is_current


@pytest.mark.parametrize("name", ["Ann \ud83d", "Ann \x00 Bee", 7, {"first": "Ann"}])
def test_a_name_that_no_text_can_hold_stops_nothing(
    database: Database, fathom: LoopbackFathom, name: Any
) -> None:
    fathom.add("100", NOW - HOUR, WORDS)
    fathom.add(
        "101", NOW - HOUR, WORDS,
        calendar_invitees=[{"email": "ann@example.org", "name": name,
                            "matched_speaker_display_name": name}],
    )  # fmt: skip
    for turn in fathom.meetings["101"].transcript or []:
        assert isinstance(turn, dict)
        turn["speaker"]["display_name"] = name
    assert sync(database, fathom).is_current
    assert calls(database) == ["100", "101"]
    assert len(texts(database, "101")) == 3


def test_a_meeting_that_somebodys_table_refuses_stops_no_other(
    database: Database, fathom: LoopbackFathom
) -> None:
    with database.transaction() as connection:
        connection.execute("ALTER TABLE fathom_calls ALTER recorded_at SET NOT NULL")
    fathom.add("100", NOW - HOUR, WORDS)
    fathom.add("101", NOW - HOUR, WORDS, recording_start_time=None)
    fathom.meetings["101"].document["created_at"] = None
    told: list[str] = []
    assert sync(database, fathom, told=told).is_current
    assert calls(database) == ["100"]
    assert any("meeting 101 could not be read: the database failed: null value" in t for t in told)
    # Mended, it comes with the next list, though it is of before the days that are read again.
    with database.transaction() as connection:
        connection.execute("ALTER TABLE fathom_calls ALTER recorded_at DROP NOT NULL")
    fathom.now += 30 * DAY
    sync(database, fathom)
    assert calls(database) == ["100", "101"]
    assert check(database, fathom).severity is Severity.HEALTHY


def test_a_later_first_day_makes_nothing_missing(
    database: Database, fathom: LoopbackFathom
) -> None:
    for number in range(40):
        fathom.add(f"{100 + number}", NOW - 60 * DAY - HOUR * number, WORDS)
    sync(database, fathom)
    for _ in range(3):
        fathom.now += DAY
        later = replace(options(fathom, withdraws=True), since=date(2026, 3, 1))
        synchronise(database, [ANN], later, now=lambda: fathom.now)
    assert len(calls(database)) == 40
    found = check(database, fathom)
    assert (found.severity, found.figures["there"]) == (Severity.HEALTHY, 40)


def test_a_first_reading_that_never_begins_becomes_critical(
    database: Database, fathom: LoopbackFathom
) -> None:
    wrong = replace(options(fathom), base_url=f"{fathom.base_url}/v2")
    synchronise(database, [ANN], wrong, now=lambda: fathom.now)
    fathom.now = datetime.now(UTC) + 2 * HOUR
    found = check(database, fathom)
    assert "its first reading stopped" in found.message
    assert found.severity is Severity.WARNING
    fathom.now += DAY
    assert check(database, fathom).severity is Severity.CRITICAL
