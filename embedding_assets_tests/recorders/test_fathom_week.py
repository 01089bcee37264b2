"""Two thousand meetings, read by processes that are killed, and changed meanwhile for a week."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr

from embedding_assets.engine.database import Database
from embedding_assets.health.findings import Finding, Severity
from embedding_assets.health.recorders import measure_keys, recorder_sync
from embedding_assets.recorders.sync.fathom import SyncReport, synchronise
from embedding_assets.recorders.sync.keys import Key
from embedding_assets.recorders.sync.options import Options
from embedding_assets_tests.calls import rows
from embedding_assets_tests.loopback_fathom import Limits, LoopbackFathom, transcript
from embedding_assets_tests.processes import PROCESSES

pytestmark = pytest.mark.slow

MEETINGS, KILLS, DAYS = 2_000, 10, 7
NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEYS = tuple(Key(name, SecretStr(f"{name}-secret")) for name in ("admin", "ann", "bob"))
WORDS = "Depot {0} is audited. We count {0} pallets. Nothing of the {0} is missing. We are done."
SINCE = date(2024, 1, 1)
# What real answers held that broke a strict reader; only the last cannot be known by an id.
MALFORMED = (
    {"title": None, "meeting_title": None},
    {"calendar_invitees": None, "recorded_by": None},
    {"meeting_type": "quantum", "shared_with": {"odd": 1}},
    {"recording_start_time": "yesterday", "url": 7},
    {"recording_id": None},
)


def seen_by(number: int) -> list[str]:
    """Every third meeting is one user's, and the admin sees most that were shared."""
    return [["ann-secret", "admin-secret"], ["bob-secret", "admin-secret"], ["ann-secret"]][
        number % 3
    ]


def add(fathom: LoopbackFathom, number: int, created_at: datetime, *, is_late: bool) -> None:
    malformed = MALFORMED[number // 50 % len(MALFORMED)] if number % 50 == 0 else {}
    words = None if is_late else WORDS.format(number)
    fathom.add(str(number), created_at, words, seen_by=seen_by(number), **malformed)


@pytest.fixture
def fathom() -> Iterator[LoopbackFathom]:
    """A server with the meetings of two years, whose minute lasts 0.4 seconds."""
    limits = Limits(with_transcripts=30, without=60, minute=0.4)
    with LoopbackFathom([key.secret.get_secret_value() for key in KEYS], limits) as fathom:
        fathom.now = NOW
        for number in range(MEETINGS):
            # Busy hours, quiet weeks, and now and then many at one moment.
            age = timedelta(hours=1 + (number * 7919) % (700 * 24), seconds=number % 3)
            add(fathom, 10_000 + number, NOW - age, is_late=number % 97 == 0 and age < 5 * DAY)
        yield fathom


def sync(
    url: str, base_url: str, now: datetime, *, withdraws: bool = True, seconds: float = 600
) -> SyncReport:
    options = Options(base_url, SINCE, withdraws=withdraws, budget=timedelta(seconds=seconds))
    with Database(url) as database:
        return synchronise(database, KEYS, options, now=lambda: now)


def sync_alone(url: str, base_url: str, now: datetime) -> None:
    """As a process of its own, which is killed."""
    sync(url, base_url, now)


def check(database: Database, now: datetime) -> Finding:
    with database.transaction(snapshot=True) as connection:
        return recorder_sync(measure_keys(connection), [key.name for key in KEYS], now)


def is_readable(fathom: LoopbackFathom, id_: str) -> bool:
    return fathom.meetings[id_].document["recording_id"] is not None


def assert_truthful(database: Database, fathom: LoopbackFathom, found: Finding) -> None:
    """After a listing, the check's counts are those of the server and of our tables."""
    with database.transaction(snapshot=True) as connection:
        known = {each.key_name: each for each in measure_keys(connection)}
    ours = {id_ for (id_,) in rows(database, "SELECT recording_id FROM fathom_calls")}
    for key in KEYS:
        visible = fathom.visible(key.secret.get_secret_value())
        readable = {id_ for id_ in visible if is_readable(fathom, id_)}
        told = known[key.name]
        assert (told.there, told.unreadable) == (len(visible), len(visible) - len(readable))
        assert told.here == len(readable & ours) == len(readable)
        assert (
            f"{key.name}: the recorder has {len(visible):,}, here are {told.here:,}"
            in "; ".join(found.items)
        )


def equal_words(database: Database, fathom: LoopbackFathom) -> None:
    """What is here is what the server has, word for word."""
    stored: dict[str, list[str]] = {}
    for id_, text in rows(
        database, "SELECT recording_id, text FROM fathom_transcripts ORDER BY 1, position"
    ):
        stored.setdefault(id_, []).append(text)
    has = {
        id_: [turn["text"] for turn in each.transcript or [] if isinstance(turn, dict)]
        for id_, each in fathom.meetings.items()
        if is_readable(fathom, id_)
    }
    assert stored == {id_: words for id_, words in has.items() if words}


def test_a_history_read_by_killed_processes_and_a_week_of_changes(
    database: Database, database_url: str, fathom: LoopbackFathom
) -> None:
    sighted = "SELECT count(*) FROM fathom_sightings"
    for kill in range(KILLS):
        process = PROCESSES.Process(target=sync_alone, args=(database_url, fathom.base_url, NOW))
        process.start()
        wanted = (kill + 1) * MEETINGS // KILLS // 2
        ends_at = time.monotonic() + 100
        while process.is_alive() and time.monotonic() < ends_at:
            if rows(database, sighted)[0][0] >= wanted:
                break
            time.sleep(0.02)
        assert process.is_alive(), "it was to be killed at its work"
        process.kill()
        process.join()
        # What is said to be here is here, though the reading is not over.
        found = check(database, NOW)
        assert found.severity is not Severity.HEALTHY
        there, here, unreadable = (
            int(found.figures[name] or 0) for name in ("there", "here", "unreadable")
        )
        assert there == here + unreadable
    sync(database_url, fathom.base_url, NOW)
    found = check(database, NOW)
    assert_truthful(database, fathom, found)
    assert found.severity is Severity.WARNING  # for what cannot be read, and nothing else
    assert found.message.count("could not be read") == found.message.count("key ")
    equal_words(database, fathom)

    chance, number = random.Random(7), 20_000
    for day in range(DAYS):
        before = fathom.now
        with fathom.lock:
            for _ in range(30):
                number += 1
                age = timedelta(minutes=chance.randrange(1, 24 * 60))
                add(fathom, number, before + DAY - age, is_late=number % 5 == 0)
            lately = sorted(
                i for i, each in fathom.meetings.items() if each.created_at > before - 5 * DAY
            )
            for id_ in chance.sample(lately, 10):  # late transcripts, and edits
                words = WORDS.format(id_).replace("pallets", f"crates of day {day}")
                fathom.meetings[id_].transcript = transcript(words)
            doomed = chance.sample(sorted(fathom.meetings), 6)
            del fathom.meetings[doomed[0]]
            fathom.now = before + DAY
        rest = iter(doomed[1:])

        def delete(rest: Iterator[str] = rest) -> None:
            with fathom.lock:
                fathom.meetings.pop(next(rest, ""), None)

        fathom.after_page = delete  # the others while it reads
        fathom.refused = {"bob-secret"} if day in {2, 3} else set()
        report = sync(database_url, fathom.base_url, fathom.now)
        fathom.after_page = lambda: None
        found = check(database, fathom.now)
        assert report.is_current
        if fathom.refused:
            assert "key bob: refused since Monday, 2026-03-23 12:00 UTC" in found.message
        else:
            assert "refused" not in found.message
            assert found.figures["missing"] == 0

    for _ in range(2):  # two listings for what went last
        fathom.now += DAY
        sync(database_url, fathom.base_url, fathom.now)
    assert_truthful(database, fathom, check(database, fathom.now))
    equal_words(database, fathom)
    ours = {id_ for (id_,) in rows(database, "SELECT recording_id FROM fathom_calls")}
    assert ours == {id_ for id_ in fathom.meetings if is_readable(fathom, id_)}
    assert fathom.answered["limited"] <= KILLS * 2  # a process that was killed knew its limit
