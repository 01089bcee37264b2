"""That the numbers are counted right, and what is judged from a real database."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, timedelta

import pytest

from embedding_assets.engine import queue
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import (
    ConfigurationError,
)
from embedding_assets.health import numbers as counted
from embedding_assets.health.configuration import Expected
from embedding_assets.health.findings import Finding, Health, Severity
from embedding_assets.health.integrity import inspect
from embedding_assets.health.judging import Thresholds, examine
from embedding_assets.health.numbers import Numbers, measure
from embedding_assets.search.frequencies import count_words
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, rows, talk
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

HEALTHY, WARNING, CRITICAL = Severity
DEFAULTS = Thresholds()
MODEL = "m"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def _by_name(health: Health) -> dict[str, Finding]:
    return {finding.name: finding for finding in health.findings}


def _numbers(database: Database) -> Numbers:
    with database.transaction(snapshot=True) as connection:
        return measure(connection)


def _activity(database: Database) -> Severity:
    return _by_name(examine(database, DEFAULTS, Expected(model=None)))["recent_activity"].severity


def _age(database: Database, span: str) -> None:
    """Lets time pass: everything that was written down was so long ago."""
    with database.transaction() as connection:
        for table, columns in (
            ("embedding_queue", ("next_attempt_at", "lease_expires_at", "enqueued_at", "started_at",
                                 "completed_at", "reconciled_at")),
            ("embedding_attempts", ("finished_at",)),
            ("integrity_progress", ("round_started_at", "last_round_ended_at", "inspected_at")),
        ):  # fmt: skip
            moved = ", ".join(f"{column} = {column} - '{span}'::interval" for column in columns)
            connection.execute(f"UPDATE {table} SET {moved}")  # type: ignore[call-overload]  # noqa: S608


def _add(database: Database, *recording_ids: str) -> None:
    with database.transaction() as connection:
        for recording_id in recording_ids:
            add_call(connection, recording_id, talk(recording_id, 3))


def _claim(database: Database, run_id: str = "run") -> None:
    claims = queue.Claims(database, run_id, 5 * MINUTE)
    assert [claim for claim in claims.due() if claim is not None]


@pytest.fixture
def night(database: Database, embed: Embed) -> Database:
    """Everything is published, and has been for nine hours."""
    _add(database, "old")
    embed()
    inspect(database)
    _age(database, "9 hours")
    return database


def test_every_number_is_counted_once_and_none_is_missing(database: Database) -> None:
    numbers = _numbers(database)
    assert numbers.by_status == {
        "pending": 0, "processing": 0, "completed": 0, "failed": 0, "dead_letter": 0,
    }  # fmt: skip
    assert {field.name for field in fields(numbers)} == {field.name for field in fields(Numbers)}
    assert examine(database, DEFAULTS, Expected(model="any")).severity is HEALTHY


def test_counts_are_of_the_whole_tables(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("""
            INSERT INTO fathom_calls (recording_id, title)
            SELECT n, 'A call' FROM generate_series(1, 7000) AS n;
        """)
        connection.execute("""
            UPDATE embedding_queue SET status = CASE
                    WHEN recording_id::int <= 2000 THEN 'completed'
                    WHEN recording_id::int <= 3100 THEN 'processing'
                    WHEN recording_id::int <= 4300 THEN 'failed'
                    WHEN recording_id::int <= 5600 THEN 'dead_letter' ELSE 'pending' END,
                claimed_by = CASE WHEN recording_id::int BETWEEN 2001 AND 3100 THEN 'run' END,
                lease_expires_at = CASE
                    WHEN recording_id::int BETWEEN 2001 AND 2050 THEN now() - interval '1 minute'
                    WHEN recording_id::int BETWEEN 2001 AND 3100
                        THEN now() + interval '1 hour' END,
                next_attempt_at = CASE
                    WHEN recording_id::int BETWEEN 3101 AND 3200 THEN now() + interval '1 minute'
                    ELSE now() END,
                recoveries = CASE WHEN recording_id::int BETWEEN 4301 AND 4700 THEN 3 ELSE 0 END,
                error_kind = 'transient', last_error = 'x', completed_at = now(),
                transcript_version = 'v', chunk_count = 3, token_count = 5
        """)
        connection.execute("""
            INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome,
                error_kind, error, embedded, requests, tokens, cost_usd, seconds, finished_at)
            SELECT gen_random_uuid(), n, 'run', 'standard',
                   CASE WHEN n % 2 = 0 THEN 'published' ELSE 'failed' END,
                   CASE WHEN n % 2 = 1 THEN 'transient' END, CASE WHEN n % 2 = 1 THEN 'x' END,
                   2, 1, 10, 0.5, 1,
                   now() - CASE WHEN n <= 3000 THEN interval '59 minutes'
                                ELSE interval '61 minutes' END
            FROM generate_series(1, 5000) AS n
        """)
    numbers = _numbers(database)
    assert numbers.by_status == {
        "completed": 2000, "processing": 1100, "failed": 1200, "dead_letter": 1300, "pending": 1400,
    }  # fmt: skip
    assert (numbers.claimable, numbers.stale_claims) == (1400 + 1100, 50)
    assert (numbers.waiting_for_person, numbers.chunks) == (400, 21_000)
    assert (numbers.unqueued, numbers.deleted) == (0, 0)
    assert numbers.due == 2550
    with database.transaction() as connection:
        assert numbers.due == queue.work_waiting(connection).due
    assert (numbers.published_last_hour, numbers.failures_last_hour) == (1500, 1500)
    assert numbers.embedded_last_hour == 6000
    newest = rows(database, "SELECT max(finished_at) FROM embedding_attempts")[0][0]
    assert numbers.last_published_at == newest


def test_a_quiet_night_in_the_database_is_no_alarm(night: Database) -> None:
    assert _numbers(night).wanted_since is None
    assert _activity(night) is HEALTHY


@pytest.mark.parametrize(
    ("ago", "severity"),
    [
        ("1 minute", HEALTHY),
        ("59 minutes", HEALTHY),
        ("61 minutes", WARNING),
        ("6 hours", CRITICAL),
    ],
)
def test_a_call_that_came_in_a_quiet_night_and_waits(
    night: Database, ago: str, severity: Severity
) -> None:
    _add(night, "new")
    _age(night, ago)
    assert _activity(night) is severity


def test_failures_that_back_off_do_not_hide_how_long_the_work_is_wanted(
    night: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(night, "new")
    _age(night, "50 minutes")
    before = rows(night, "SELECT enqueued_at FROM embedding_queue WHERE recording_id = 'new'")[0][0]
    api.faults = [Fault(status=503)]
    for attempt in (1, 2):
        embed()
        numbers = _numbers(night)
        assert (numbers.failed, numbers.claimable) == (1, 0)  # it backs off
        assert numbers.unfinished_since == before
        assert _activity(night) is HEALTHY
        _age(night, "5 minutes")
        before -= 5 * MINUTE
        assert attempt == numbers.failures_last_hour
    assert _activity(night) is WARNING


def test_everything_that_comes_is_given_up_and_nothing_else_is_left(
    night: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(night, "new-1", "new-2", "new-3")
    api.faults = [Fault(status=503)]
    for _ in range(3):
        embed()
        _age(night, "25 minutes")
    numbers = _numbers(night)
    assert (numbers.unfinished, numbers.dead_letters, numbers.given_up_lately) == (0, 3, 3)
    assert _activity(night) is WARNING


def test_dead_letters_from_before_the_last_publication_are_no_alarm_of_activity(
    database: Database, embed: Embed
) -> None:
    _add(database, "dead-1", "dead-2", "dead-3", "good")
    _give_up(database, "dead-%", enqueued="1 hour")
    embed()
    _age(database, "9 hours")
    numbers = _numbers(database)
    assert (numbers.dead_letters, numbers.given_up_lately) == (3, 0)
    assert _activity(database) is HEALTHY


def _give_up(database: Database, like: str, enqueued: str = "0", recoveries: int = 0) -> None:
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, recoveries = %s,"
            " error_kind = 'transient', last_error = 'x', enqueued_at = now() - %s::interval"
            " WHERE recording_id LIKE %s",
            [recoveries, enqueued, like],
        )


def test_a_dead_letter_that_is_being_recovered_is_not_wanted_since_it_was_given_up(
    night: Database,
) -> None:
    _add(night, "dead")
    _give_up(night, "dead", enqueued="7 days")
    assert list(queue.Claims(night, "recovery", 5 * MINUTE).dead_letters())
    numbers = _numbers(night)
    assert numbers.processing == 1
    assert numbers.wanted_since is not None
    assert numbers.checked_at - numbers.wanted_since < MINUTE
    assert _activity(night) is HEALTHY


def test_a_published_recording_that_somebody_takes_again_is_wanted_since_then(
    night: Database, api: LoopbackAPI, embed: Embed
) -> None:
    with night.transaction() as connection:
        connection.execute("DELETE FROM chunk_embeddings")
    api.faults = [Fault(status=503)]
    embed("old")
    assert _numbers(night).failed == 1
    assert _activity(night) is HEALTHY
    _age(night, "61 minutes")
    assert _activity(night) is WARNING


def test_a_run_that_holds_everything_and_publishes_nothing_is_an_alarm(night: Database) -> None:
    _add(night, "new")
    _claim(night)
    _age(night, "61 minutes")
    with night.transaction() as connection:
        sql.renew_leases(connection, run_id="run", lease=5 * MINUTE)
    numbers = _numbers(night)
    assert (numbers.due, numbers.processing, numbers.stale_claims) == (0, 1, 0)
    assert _activity(night) is WARNING


def test_runs_that_died_leave_work_due(night: Database) -> None:
    _add(night, "new")
    _claim(night)
    _age(night, "4 minutes")
    assert _numbers(night).stale_claims == 0
    _age(night, "2 minutes")
    numbers = _numbers(night)
    assert (numbers.stale_claims, numbers.due) == (1, 1)
    stale = _by_name(examine(night, DEFAULTS, Expected(model=None)))["stale_claims"]
    assert stale.severity is WARNING
    assert stale.items[0].startswith("new: held by run run, whose lease ended ")
    assert _activity(night) is HEALTHY
    _age(night, "6 hours")
    assert _activity(night) is CRITICAL


FOREIGN = {
    "with created_at": "created_at timestamptz NOT NULL DEFAULT now()",
    "with a created_at that is no date": "created_at text NOT NULL DEFAULT 'yesterday'",
    "without created_at": "url text",
}


@pytest.fixture(params=FOREIGN)
def foreign(database: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A recorder's own tables, with bigint ids and no trigger of ours; nothing for nine hours."""
    with database.transaction() as connection:
        connection.execute("DROP TABLE fathom_transcripts, fathom_calls CASCADE")
        connection.execute(
            "CREATE TABLE fathom_calls (recording_id bigint PRIMARY KEY, title text NOT NULL,"
            f" {FOREIGN[request.param]})"
        )
        connection.execute(
            "CREATE TABLE fathom_transcripts (recording_id bigint, position int, speaker_name text,"
            " start_seconds float, end_seconds float, text text, edited_text text,"
            " is_deleted boolean, PRIMARY KEY (recording_id, position))"
        )
        connection.execute(
            "INSERT INTO embedding_queue (recording_id, status, completed_at, transcript_version,"
            " chunk_count, token_count) VALUES ('7', 'completed', now(), 'v', 0, 0)"
        )
        connection.execute(
            "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome,"
            " seconds) VALUES (gen_random_uuid(), '7', 'run', 'standard', 'published', 1)"
        )
        connection.execute("INSERT INTO fathom_calls (recording_id, title) VALUES (7, 'A call')")
    _age(database, "9 hours")
    return database


@pytest.mark.parametrize(
    ("change", "unqueued", "deleted"),
    [
        ("INSERT INTO fathom_calls (recording_id, title) VALUES (8, 'A call')", 1, 0),
        ("DELETE FROM fathom_calls", 0, 1),
    ],
)
def test_calls_that_nobody_told_the_queue_of(
    foreign: Database, change: str, unqueued: int, deleted: int
) -> None:
    assert (_numbers(foreign).due, _activity(foreign)) == (0, HEALTHY)
    with foreign.transaction() as connection:
        connection.execute("UPDATE integrity_progress SET inspected_at = now() - interval '9 min'")
        connection.execute(change)  # type: ignore[call-overload]
    numbers = _numbers(foreign)
    assert (numbers.unqueued, numbers.deleted, numbers.due) == (unqueued, deleted, 1)
    assert _activity(foreign) is HEALTHY
    _age(foreign, "61 minutes")  # and neither a worker nor an inspection looked
    assert _activity(foreign) is WARNING
    with foreign.transaction() as connection:  # as reconciling does, but for transcripts
        sql.enqueue_unqueued(connection)
        gone = [row.recording_id for row in sql.deleted_calls(connection)]
        queue.enqueue_recordings(connection, gone)
    numbers = _numbers(foreign)
    assert (numbers.unqueued, numbers.deleted, numbers.pending) == (0, 0, 1)
    assert _activity(foreign) is HEALTHY  # from now on it is known since when
    _age(foreign, "61 minutes")
    assert _activity(foreign) is WARNING


def _attempt(
    connection: Connection, outcome: str, ago: str, kind: str | None = None, embedded: int = 0
) -> None:
    connection.execute(
        "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome,"
        " error_kind, error, embedded, seconds, finished_at) VALUES (gen_random_uuid(), 'a',"
        " 'run', 'standard', %s, %s, %s, %s, 1, now() - %s::interval)",
        [outcome, kind, kind and "OPENAI_API_KEY was refused", embedded, ago],
    )


@pytest.mark.parametrize("outcome", ["failed", "released"])
def test_a_configuration_error_is_red_until_something_is_embedded(
    database: Database, outcome: str
) -> None:
    def configuration() -> Finding:
        return _by_name(examine(database, DEFAULTS, Expected(model=None)))["configuration"]

    with database.transaction() as connection:
        _attempt(connection, "published", "3 hours", embedded=5)
        _attempt(connection, "released", "2 hours 30 minutes", "transient")
        _attempt(connection, outcome, "2 hours", "configuration")
        _attempt(connection, "published", "1 hour", embedded=0)  # needed no key
    assert configuration().severity is HEALTHY  # nothing is due
    _add(database, "a")
    assert configuration().severity is CRITICAL
    assert "OPENAI_API_KEY was refused" in configuration().message
    with database.transaction() as connection:
        _attempt(connection, "published", "1 minute", embedded=1)
    assert configuration().severity is HEALTHY
    with database.transaction() as connection:
        _attempt(connection, outcome, "0", "configuration")
    assert configuration().severity is CRITICAL


def test_a_refused_key_turns_the_check_red_and_a_good_one_green_again(
    database: Database, api: LoopbackAPI, embed: Embed
) -> None:
    _add(database, "a", "b")
    api.faults = [Fault(status=401)]
    with pytest.raises(ConfigurationError):
        embed()
    model = rows(database, "SELECT model FROM embedding_models")[0][0]
    before = examine(database, DEFAULTS, Expected(model=model))
    assert _by_name(before)["configuration"].severity is CRITICAL
    api.faults = []
    embed()
    assert examine(database, DEFAULTS, Expected(model=model)).severity is HEALTHY


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kolkata"])
def test_the_sessions_time_zone_changes_no_number(
    database: Database, database_url: str, zone: str
) -> None:
    _add(database, "a", "b")
    with database.transaction() as connection:
        for hours in range(50):
            connection.execute(
                "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome,"
                " requests, tokens, cost_usd, seconds, finished_at) VALUES (gen_random_uuid(), 'a',"
                " 'run', 'standard', 'published', 1, 10, 0.5, 1,"
                " date_trunc('hour', now(), 'UTC') - %s * interval '1 hour')",
                [hours],
            )
    name = rows(database, "SELECT current_database()")[0][0]
    with database.transaction() as connection:
        connection.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    with Database(database_url) as elsewhere:
        assert rows(elsewhere, "SELECT current_setting('timezone')") == [(zone,)]
        numbers = _numbers(elsewhere)
        hourly = counted.attempts_by_hour(elsewhere, numbers.checked_at - 3 * DAY)
    midnight = numbers.checked_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    hours_today = numbers.checked_at.astimezone(UTC).hour + 1
    assert numbers.requests_today == hours_today
    assert (numbers.tokens_today, numbers.cost_today_usd) == (10 * hours_today, 0.5 * hours_today)
    assert len(hourly) == 50
    assert all(row["hour"].astimezone(UTC).minute == 0 for row in hourly)
    assert sum(row["attempts"] for row in hourly if row["hour"] >= midnight) == hours_today


def test_examining_writes_nothing_and_names_the_worst(database: Database, embed: Embed) -> None:
    _add(database, "good", "dead-1", "dead-2", "dead-3", "dead-4")
    _give_up(database, "dead-%")
    _give_up(database, "dead-4", recoveries=3)
    embed()
    with database.transaction() as connection:
        connection.execute("DELETE FROM transcript_chunks WHERE recording_id = 'good'")
    inspect(database)
    _add(database, "new")
    judged = examine(database, DEFAULTS, Expected(model=None))
    findings = _by_name(judged)
    assert findings["dead_letters"].items[0] == "dead-4: transient: x (waits for a person)"
    assert len(findings["dead_letters"].items) == 3
    assert findings["chunk_integrity"].items[0].startswith("good: 0 chunks where ")
    assert findings["pending_backlog"].items[0].startswith("new: pending, wanted since ")
    assert judged.dead_letters[0].recording_id == "dead-4"
    assert judged.as_dict()["status"] == "critical"


def test_health_survives_a_lost_row_of_progress(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("TRUNCATE integrity_progress, integrity_findings")
    assert examine(database, DEFAULTS, Expected(model=None)).severity is HEALTHY
    inspect(database)


def test_a_schema_that_is_not_there_is_a_configuration_error(empty_database_url: str) -> None:
    with Database(empty_database_url) as database, pytest.raises(ConfigurationError):
        examine(database, DEFAULTS, Expected(model=None))


def test_words_that_nobody_counts_are_a_warning_until_they_are_counted(
    database: Database, night: Database, embed: Embed
) -> None:
    def words() -> Finding:
        return _by_name(examine(night, DEFAULTS, Expected(model=None)))["search_words"]

    def let_a_day_pass() -> None:
        _age(night, "1 day")
        with night.transaction() as connection:
            connection.execute(
                "UPDATE search_languages SET counted_at = counted_at - '1 day'::interval"
            )

    assert words().figures["words_counted"] == 0
    let_a_day_pass()  # never counted
    assert (words().severity, "count_words" in (words().action or "")) == (WARNING, True)
    count_words(night)
    let_a_day_pass()  # all is counted, however long ago
    assert (words().severity, words().figures["words_counted"]) == (
        HEALTHY,
        words().figures["chunks"],
    )
    _add(night, "new")
    embed()
    assert words().severity is HEALTHY  # the schedule has not had its turn
    _age(night, "4 hours")
    assert words().severity is WARNING
    count_words(night)
    assert words().severity is HEALTHY


def test_what_is_cut_by_other_sizes_than_the_settings_is_counted(night: Database) -> None:
    def sizes(cut_as: str | None) -> Finding:
        return _by_name(examine(night, DEFAULTS, Expected(model=None, cut_as=cut_as)))[
            "chunk_sizes"
        ]

    assert sizes(CHUNKING.name).severity is HEALTHY
    changed = sizes("100/10/120")
    assert (changed.severity, changed.figures["cut_otherwise"]) == (WARNING, 1)
    assert "rechunk --estimate" in (changed.action or "")
    with night.transaction() as connection:
        connection.execute("UPDATE published_recordings SET cut_as = NULL")
    older = sizes("100/10/120")
    assert (older.severity, older.figures["cut_unknown"]) == (HEALTHY, 1)
    assert older.message.startswith("1 recording published by an older version")
