"""What a dead run held: who is suspected of having killed it, and who pays."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import create_engine

from embedding_assets import migrations
from embedding_assets.engine import queue
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.outcome import Result
from embedding_assets.engine.queue import CLAIM_SIZE, Claim, Claims
from embedding_assets_tests.calls import (
    CHUNKING,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import LoopbackAPI

STATES = "SELECT DISTINCT status, attempts, crashes FROM embedding_queue"


def _add_calls(database: Database, number: int) -> None:
    with database.transaction() as connection:
        for n in range(number):
            add_call(connection, f"r{n:03}", talk(f"r{n}", 3))


def _ids(claims: Iterable[Claim | None]) -> list[str]:
    return [claim.recording_id for claim in claims if claim is not None]


def _dies_holding(database: Database, number: int, run_id: str = "died") -> list[str]:
    """A run whose leases have run out when it holds so many."""
    due = Claims(database, run_id, timedelta(0)).due()
    return _ids(next(due) for _ in range(number))


def _taken(database: Database, run_id: str = "next") -> list[str]:
    """What a run takes before it must wait."""
    taken = []
    for claim in Claims(database, run_id).due():
        if claim is None:
            break
        taken.append(claim.recording_id)
    return taken


def test_a_crash_costs_many_recordings_no_attempt_and_one_that_was_alone_its_own(
    database: Database, embed: Embed
) -> None:
    _add_calls(database, CLAIM_SIZE)
    assert len(_dies_holding(database, CLAIM_SIZE)) == CLAIM_SIZE
    Claims(database, "looks").take_over("another")
    assert rows(database, STATES) == [("pending", 0, 1)]
    history = "SELECT DISTINCT run_id, outcome, error_kind FROM embedding_attempts"
    assert rows(database, history) == [("died", "released", "crashed")]
    with database.transaction() as connection:
        connection.execute("DELETE FROM embedding_queue WHERE recording_id <> 'r000'")
    assert _dies_holding(database, 1, "died alone") == ["r000"]
    Claims(database, "looks").take_over("another")
    assert rows(database, STATES) == [("failed", 1, 2)]
    assert [o.result for o in embed("r000")] == [Result.PUBLISHED]
    assert rows(database, STATES + " WHERE recording_id = 'r000'") == [("completed", 0, 0)]


def test_suspects_are_taken_after_the_others_in_groups_that_shrink(database: Database) -> None:
    _add_calls(database, 60)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET crashes = CASE WHEN recording_id < 'r030' THEN 2"
            " WHEN recording_id < 'r050' THEN 3 ELSE 0 END"
        )
    claims = Claims(database, "run")
    groups: list[list[Claim]] = [[]]
    for claim in claims.due():
        if claim is None:
            for held in groups[-1]:
                claims.end(held)
            groups.append([])
        else:
            groups[-1].append(claim)
    sizes = [(len(group), {claim.crashes for claim in group}) for group in groups]
    expected = [(10, {0}), (16, {2}), (14, {2})] + [(4, {3})] * 5
    assert sizes == expected


def test_a_run_that_holds_something_takes_no_suspect_and_one_with_suspects_nothing_else(
    database: Database,
) -> None:
    _add_calls(database, 3)
    with database.transaction() as connection:
        connection.execute("UPDATE embedding_queue SET crashes = 9 WHERE recording_id > 'r000'")
    assert _taken(database, "busy") == ["r000"]
    assert _taken(database, "idle") == ["r001"]
    with database.transaction() as connection:
        add_call(connection, "new", ["hello"])
    claims = Claims(database, "other")
    due = claims.these(["r002", "new"])
    first = next(due)
    assert first is not None
    assert first.recording_id == "new"
    assert next(due) is None
    assert next(due) is None
    claims.end(first)
    assert _ids([next(due)]) == ["r002"]


def test_suspects_among_named_recordings_are_embedded_to_the_last(
    database: Database, api: LoopbackAPI
) -> None:
    _add_calls(database, 30)
    with database.transaction() as connection:
        connection.execute("UPDATE embedding_queue SET crashes = 4 WHERE recording_id < 'r004'")
        connection.execute("UPDATE embedding_queue SET crashes = 1 WHERE recording_id > 'r020'")
    claims = Claims(database, "run")
    run = EmbeddingRun(database, embedder_of(api), CHUNKING, claims)
    outcomes = list(run.embed(claims.these([f"r{n:03}" for n in range(30)])))
    assert [o.result for o in outcomes] == [Result.PUBLISHED] * 30
    assert rows(database, STATES) == [("completed", 0, 0)]
    careful = {o.recording_id for o in outcomes if o.figures.lane == "small_batch"}
    assert careful == {f"r{n:03}" for n in [*range(4), *range(21, 30)]}


def test_a_recording_that_was_left_locked_was_not_held_alone(
    database: Database, database_url: str
) -> None:
    _add_calls(database, 2)
    _dies_holding(database, 2)
    with Database(database_url) as recorder, recorder.transaction() as connection:
        connection.execute("SELECT 1 FROM embedding_queue WHERE recording_id = 'r000' FOR UPDATE")
        Claims(database, "looks").take_over("another")
    assert rows(database, "SELECT status FROM embedding_queue ORDER BY recording_id") == [
        ("processing",),
        ("pending",),
    ]
    Claims(database, "looks").take_over("another")
    assert rows(database, STATES) == [("pending", 0, 1)]


def test_a_run_is_dead_when_its_last_lease_has_run_out(database: Database) -> None:
    _add_calls(database, 2)
    claims = Claims(database, "lives")
    assert len(_taken(database, "lives")) == 2
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET lease_expires_at = now() - interval '1 minute'"
            " WHERE recording_id = 'r000'"
        )
    Claims(database, "looks").take_over("another")
    assert rows(database, STATES) == [("processing", 0, 0)]
    claims.release()
    assert rows(database, STATES) == [("pending", 0, 0)]


def test_a_crash_with_several_dead_letters_costs_them_no_recovery(database: Database) -> None:
    _add_calls(database, 2)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
            " error_kind = 'transient', last_error = 'x', next_attempt_at = now()"
        )
    assert len(_ids(Claims(database, "died", timedelta(0)).dead_letters())) == 2
    Claims(database, "looks").take_over("another")
    states = "SELECT DISTINCT status, attempts, recoveries, crashes FROM embedding_queue"
    assert rows(database, states) == [("dead_letter", 3, 0, 1)]
    with database.transaction() as connection:
        connection.execute("UPDATE embedding_queue SET crashes = 4")
    (alone,) = _ids(Claims(database, "died too", timedelta(0)).dead_letters())
    Claims(database, "looks").take_over("another")
    assert rows(database, states + f" WHERE recording_id = '{alone}'") == [("dead_letter", 4, 1, 5)]


def test_what_a_dead_run_held_is_left_undone_although_it_was_taken_back(
    database: Database,
) -> None:
    _add_calls(database, 3)
    taken = _dies_holding(database, 3)
    Claims(database, "looks").take_over("another")
    with database.transaction() as connection:
        assert queue.left_undone(connection, "died", None) == taken
        assert queue.left_undone(connection, "looks", None) == []


@pytest.mark.parametrize("way", ["a change", "a person's retry"])
def test_what_was_changed_or_retried_by_a_person_is_no_suspect(
    database: Database, way: str
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 3))
        connection.execute(
            "UPDATE embedding_queue SET crashes = 3, status = 'failed', attempts = 1,"
            " error_kind = 'crashed', last_error = 'x'"
        )
        if way == "a change":
            connection.execute("UPDATE fathom_transcripts SET edited_text = 'x'")
        else:
            queue.retry(connection, ["a"], force=False)
    assert rows(database, "SELECT status, crashes FROM embedding_queue") == [("pending", 0)]


def test_the_migration_goes_back_and_forth_and_functions_stay_pinned(
    database: Database, database_url: str
) -> None:
    pinned = (
        "SELECT proname FROM pg_proc WHERE proconfig::text LIKE '%%search_path=%%pg_temp%%'"
        " ORDER BY 1"
    )
    tracking = [("enqueue_recordings",), ("track_calls",), ("track_transcripts",)]
    search = [("chunk_similarities",), ("nearest_chunk_vectors",), ("search_transcript_chunks",)]
    names = "follow_owners follow_readers is_limited reader_identities readable_recordings"
    access = [(name,) for name in [*names.split(), "sees_all_calls"]]
    names = "access_is_on has_tokens may_change_call newest_recordings token_of"
    serving = [(name,) for name in names.split()]
    everything = sorted(tracking + search + access + serving)
    assert rows(database, pinned) == everything
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    engine.dispose()
    assert rows(database, pinned) == tracking
    with database.transaction() as connection:
        add_call(connection, "a", ["hello"])
    assert migrations.migrate(database_url)
    assert rows(database, pinned) == everything
    assert rows(database, "SELECT crashes FROM embedding_queue") == [(0,)]


def test_many_that_find_a_dead_run_at_once_take_it_back_once(
    database: Database, database_url: str
) -> None:
    _add_calls(database, 60)
    _dies_holding(database, 60)

    def look(number: int) -> int:
        with Database(database_url) as own:
            return len(_taken(own, f"looks-{number}"))

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(look, range(6)))
    assert sum(taken) == 60
    assert rows(database, "SELECT DISTINCT attempts, crashes FROM embedding_queue") == [(0, 1)]
    crashes = (
        "SELECT outcome, count(*) AS attempts, count(DISTINCT recording_id) AS recordings"
        " FROM embedding_attempts GROUP BY outcome"
    )
    assert rows(database, crashes) == [("released", 60, 60)]


@pytest.mark.parametrize("how", ["due", "these", "dead letters"])
def test_a_claim_keeps_its_limit_though_the_table_was_empty_when_it_was_analyzed(
    database: Database, how: str
) -> None:
    """Postgres then plans to ask for the picked rows again for each row of the queue."""
    _add_calls(database, 2 * CLAIM_SIZE)
    with database.transaction() as connection:
        if how == "dead letters":
            connection.execute(
                "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3,"
                " error_kind = 'transient', last_error = 'x'"
            )
        connection.execute(
            "UPDATE pg_class SET reltuples = 0, relpages = 1"
            " WHERE relname IN ('embedding_queue', 'embedding_queue_due', 'embedding_queue_pkey')"
        )
        given = {"run_id": "run", "lease": timedelta(minutes=5), "crashes": 0, "limit": 5}
        if how == "due":
            claimed = list(sql.claim_due(connection, **given))
        elif how == "these":
            ids = [row.recording_id for row in connection.execute("SELECT * FROM embedding_queue")]
            claimed = list(sql.claim_these(connection, recording_ids=ids, **given))
        else:
            claimed = list(sql.claim_dead_letters(connection, max_recoveries=3, **given))
        assert len(claimed) == 5
        held = "SELECT count(*) FROM embedding_queue WHERE status = 'processing'"
        assert connection.execute(held).fetchone() == (5,)
