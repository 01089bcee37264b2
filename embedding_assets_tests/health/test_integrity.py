# ruff: noqa: S608  (the statements are put together from this file's own texts)
import itertools
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from embedding_assets.engine import queue
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import StatementTimeoutError
from embedding_assets.engine.mending import prepare_mending
from embedding_assets.engine.queue import Claim, Claims
from embedding_assets.engine.sweeping import sweep
from embedding_assets.health.integrity import found_broken, inspect
from embedding_assets.health.statements import sql
from embedding_assets_tests.calls import (
    CHUNKING,
    DIMENSIONS,
    Embed,
    add_call,
    embedder_of,
    rows,
    talk,
)
from embedding_assets_tests.loopback_api import LoopbackAPI

VECTOR_OF_A = (
    "content_hash = (SELECT content_hash FROM transcript_chunks"
    " WHERE recording_id = 'a' AND chunk_index = 1)"
)
LAST_OF_A = (
    "recording_id = 'a' AND chunk_index ="
    " (SELECT max(chunk_index) FROM transcript_chunks WHERE recording_id = 'a')"
)
BREAKAGES = {
    "a chunk is gone": (
        f"DELETE FROM transcript_chunks WHERE {LAST_OF_A}",
        r"\d+ chunks where \d+ were published",
    ),
    "a chunk too many": (
        "INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text, content_hash,"
        " token_count, speakers, first_position, last_position)"
        " SELECT 'a', chunk_index + 1, chunk_text, content_hash, token_count, speakers,"
        f" first_position, last_position FROM transcript_chunks WHERE {LAST_OF_A}",
        r"\d+ chunks where \d+ were published",
    ),
    "a gap": (
        f"UPDATE transcript_chunks SET chunk_index = chunk_index + 1 WHERE {LAST_OF_A}",
        r"a gap in chunk_index: \d+ chunks, the last one numbered \d+",
    ),
    "a vector is gone": (
        f"DELETE FROM chunk_embeddings WHERE {VECTOR_OF_A}",
        r"1 of \d+ chunks without a vector of the live model",
    ),
    "a vector of another model": (
        f"UPDATE chunk_embeddings SET model = 'other' WHERE {VECTOR_OF_A}",
        r"1 of \d+ chunks without a vector of the live model",
    ),
    "a vector of the wrong dimension": (
        f"UPDATE chunk_embeddings SET embedding = '[1,2]' WHERE {VECTOR_OF_A}",
        r"1 of \d+ chunks with a vector of the wrong dimension",
    ),
    "a vector of length zero": (
        "UPDATE chunk_embeddings SET embedding ="
        f" array_fill(0, ARRAY[{DIMENSIONS}])::vector WHERE {VECTOR_OF_A}",
        r"1 of \d+ chunks with a vector of length zero",
    ),
    "published empty": (
        "DELETE FROM transcript_chunks WHERE recording_id = 'a';"
        "UPDATE embedding_queue SET chunk_count = 0 WHERE recording_id = 'a'",
        "published without chunks, though its transcript has text",
    ),
    "an orphan of a deleted call": (
        "DELETE FROM fathom_calls WHERE recording_id = 'a';"
        "DELETE FROM embedding_queue WHERE recording_id = 'a'",
        r"\d+ chunks of a recording that is not in the queue",
    ),
    # The inspection has queued it again by then.
    "an orphan whose call is there": (
        "DELETE FROM embedding_queue WHERE recording_id = 'a'",
        r"\d+ chunks where 0 were published",
    ),
    "a dead letter that lost a chunk": (
        f"DELETE FROM transcript_chunks WHERE {LAST_OF_A};"
        "UPDATE embedding_queue SET status = 'dead_letter', recoveries = 3, last_error = 'x',"
        " error_kind = 'transient' WHERE recording_id = 'a'",
        r"\d+ chunks where \d+ were published",
    ),
}


def _run(database: Database, statements: str) -> None:
    with database.transaction() as connection:
        for statement in statements.split(";"):
            connection.execute(statement)  # type: ignore[call-overload]


def _findings(database: Database) -> dict[str, str]:
    return dict(rows(database, "SELECT recording_id, problem FROM integrity_findings"))


def _progress(database: Database) -> Any:
    return rows(database, "SELECT * FROM integrity_progress")[0]


def _look(database: Database, recordings: int = 2_000, chunks: int = 2_500) -> None:
    """One window of an inspection."""
    inspect(database, recordings=recordings, chunks=chunks, seconds=0)


def _retry_with_force(database: Database, *recording_ids: str) -> None:
    def make_due(connection: Connection) -> None:
        prepare_mending(connection, recording_ids)
        queue.retry(connection, recording_ids, force=True)

    database.retrying(make_due)


@pytest.fixture
def published(database: Database, embed: Embed) -> Database:
    """Two recordings with several chunks each, and one that says nothing."""
    with database.transaction() as connection:
        for recording_id in ("a", "b"):
            add_call(connection, recording_id, talk(recording_id, 20))
        add_call(connection, "silent", [" ", "\n"])
    embed()
    return database


def test_what_was_published_is_as_it_should_be(published: Database) -> None:
    _look(published)
    assert _findings(published) == {}
    progress = _progress(published)
    counted = rows(published, "SELECT count(*) FROM transcript_chunks")[0][0]
    assert (progress.recordings, progress.chunks) == (3, counted)
    assert progress.last_round_ended_at == progress.inspected_at is not None


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_breakage_is_found_remembered_and_forgotten_when_it_is_mended(
    published: Database, embed: Embed, breakage: str
) -> None:
    statements, problem = BREAKAGES[breakage]
    _run(published, statements)
    _look(published)
    found = _findings(published)
    assert list(found) == ["a"]
    assert re.fullmatch(problem, found["a"]), found
    since = rows(published, "SELECT found_at FROM integrity_findings")
    _look(published)
    assert _findings(published) == found
    assert rows(published, "SELECT found_at FROM integrity_findings") == since

    _retry_with_force(published, "a")
    embed()
    _look(published)
    assert _findings(published) == {}
    is_there = rows(published, "SELECT count(*) FROM fathom_calls WHERE recording_id = 'a'")
    status = rows(published, "SELECT status FROM embedding_queue WHERE recording_id = 'a'")
    assert status == [("completed",)] * is_there[0][0]


def test_without_a_live_model_no_chunk_can_be_found(published: Database) -> None:
    _run(published, "UPDATE embedding_models SET is_live = false")
    _look(published)
    assert sorted(_findings(published)) == ["a", "b"]


def test_a_bad_vector_that_two_recordings_share_is_mended_for_both(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        for recording_id in ("a", "b"):
            add_call(connection, recording_id, talk("the same", 20))
    embed()
    _run(database, BREAKAGES["a vector of length zero"][0])
    _look(database)
    assert sorted(_findings(database)) == ["a", "b"]
    _retry_with_force(database, "a")
    embed()
    _look(database)
    assert _findings(database) == {}


def test_mending_leaves_what_is_sound_alone(published: Database) -> None:
    before = rows(published, "SELECT id FROM chunk_embeddings ORDER BY id")
    with published.transaction() as connection:
        assert prepare_mending(connection, ["a", "b", "nobody"]) == []
    assert rows(published, "SELECT id FROM chunk_embeddings ORDER BY id") == before
    assert rows(published, "SELECT recording_id FROM embedding_queue ORDER BY 1") == [
        ("a",), ("b",), ("silent",),
    ]  # fmt: skip


def test_mending_tells_of_what_waits_already(published: Database) -> None:
    _run(published, BREAKAGES["an orphan of a deleted call"][0])
    for _ in range(2):
        with published.transaction() as connection:
            assert prepare_mending(connection, ["a", "b"]) == ["a"]


def test_a_run_whose_vector_was_cleared_away_fails_once_and_embeds_it_then(
    published: Database, database_url: str, api: LoopbackAPI, embed: Embed
) -> None:
    with published.transaction() as connection:
        connection.execute(
            "UPDATE chunk_embeddings SET embedding = array_fill(0, ARRAY[%s])::vector"
            f" WHERE content_hash = (SELECT content_hash FROM transcript_chunks WHERE {LAST_OF_A})",
            [DIMENSIONS],
        )
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = 'edited'"
            " WHERE recording_id = 'a' AND position = 0"
        )

    def claimed(claims: Claims) -> Iterator[Claim | None]:
        yield from claims.these(["a"])
        # By now the bad vector counts as stored, and the edited text is not embedded yet.
        with Database(database_url) as own, own.transaction() as connection:
            prepare_mending(connection, ["a"])

    claims = Claims(published, "run", timedelta(minutes=5))
    run = EmbeddingRun(published, embedder_of(api), CHUNKING, claims)
    (outcome,) = run.embed(claimed(claims))
    assert "swept" in (outcome.error or "")
    (outcome,) = embed("a")
    assert (outcome.result, outcome.figures.embedded) == ("published", 1)
    _look(published)
    assert _findings(published) == {}


def test_a_change_that_was_not_read_yet_is_no_breakage(published: Database) -> None:
    # As where no trigger may stand on the recorder's tables, and it is not this one's turn yet.
    _run(
        published,
        "ALTER TABLE fathom_transcripts DISABLE TRIGGER USER;"
        "UPDATE fathom_transcripts SET text = 'x' WHERE recording_id = 'silent';"
        "INSERT INTO fathom_calls (recording_id, title)"
        " SELECT 'z' || n, 'A call' FROM generate_series(1, 501) AS n;"
        "UPDATE embedding_queue SET status = 'completed', completed_at = now(), chunk_count = 0,"
        " transcript_version = 'v', token_count = 0, reconciled_at = now() - interval '1 day'"
        " WHERE recording_id LIKE 'z%'",
    )
    _look(published)
    status = "SELECT status FROM embedding_queue WHERE recording_id = 'silent'"
    assert rows(published, status) == [("completed",)]
    assert _findings(published) == {}


def test_an_inspection_tells_the_queue_what_nobody_told_it(published: Database) -> None:
    # Where nothing is due, no worker starts that would compare the transcripts.
    _run(
        published,
        "ALTER TABLE fathom_transcripts DISABLE TRIGGER USER;"
        "ALTER TABLE fathom_calls DISABLE TRIGGER USER;"
        "UPDATE fathom_transcripts SET edited_text = 'edited' WHERE recording_id = 'a';"
        "DELETE FROM fathom_calls WHERE recording_id = 'b';"
        "INSERT INTO fathom_calls (recording_id, title) VALUES ('new', 'A call')",
    )
    _look(published)
    waiting = rows(published, "SELECT recording_id FROM embedding_queue WHERE status = 'pending'")
    assert sorted(waiting) == [("a",), ("b",), ("new",)]


ODD_IDS = ["10", "9", "a", "A", "a b", "a-b", "ab", "B", "b_", "é", "e", "z", "Z", "~", "日本"]


@pytest.fixture
def strewn(database: Database) -> Database:
    """Queued recordings of 0 to 40 chunks among orphans: alone, in rows, and at both ends."""
    sizes = [2, 1, 7, 40, 0, 3, 2, 0, 11]
    ids = ["!first", *ODD_IDS, *(f"r{n:03}" for n in range(30)), "~~last"]
    orphans = {"!first", "~~last", "B", "r010", "r011", "r012", "r020"}
    with database.transaction() as connection:
        for number, id in enumerate(ids):
            size = sizes[number % 9] or int(id in orphans)
            if id not in orphans:
                connection.execute(
                    "INSERT INTO fathom_calls (recording_id, title) VALUES (%s, 'A call')", [id]
                )
                connection.execute(
                    "UPDATE embedding_queue SET status = 'completed', completed_at = now(),"
                    " transcript_version = 'v', token_count = 0, chunk_count = %s"
                    " WHERE recording_id = %s",
                    [size, id],
                )
            connection.execute(
                "INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text,"
                " content_hash, token_count, speakers, first_position, last_position)"
                " SELECT %s, n, 'x', sha256('x'), 1, '{}', 0, 0"
                " FROM generate_series(0, %s - 1) AS n",
                [id, size],
            )
    return database


def test_a_round_passes_each_recording_once_whatever_the_windows(strewn: Database) -> None:
    expected = rows(
        strewn,
        "SELECT recording_id FROM embedding_queue UNION SELECT recording_id FROM transcript_chunks"
        " ORDER BY recording_id",
    )
    sizes: Counter[str] = Counter(
        id for (id,) in rows(strewn, "SELECT recording_id FROM transcript_chunks")
    )
    for recordings, chunks in itertools.product([1, 2, 5, 1000], [1, 3, 10, 1000]):
        passed: list[str] = []
        after: str | None = ""
        while after is not None:
            with strewn.transaction() as connection:
                window = list(
                    sql.next_window(connection, after=after, recordings=recordings, chunks=chunks)
                )
            after = window[0].until if window else None
            ids = [row.recording_id for row in window]
            assert sum(sizes[id] for id in ids[:-1]) < chunks  # the last one is looked at whole
            passed += ids
        assert [(id,) for id in passed] == expected


def test_a_round_of_small_inspections_finds_everything(strewn: Database) -> None:
    inspections = 0
    while not inspections or _progress(strewn).looked_until is not None:
        _look(strewn, recordings=3, chunks=10)
        inspections += 1
    assert inspections > 10
    broken = rows(strewn, "SELECT DISTINCT recording_id FROM transcript_chunks ORDER BY 1")
    with strewn.transaction() as connection:
        assert sorted(found_broken(connection)) == sorted(id for (id,) in broken)
    assert _progress(strewn).last_round_ended_at is not None
    _look(strewn)
    assert _progress(strewn).looked_until is None
    assert len(_findings(strewn)) == len(broken)


def test_one_inspection_goes_on_until_its_time_is_spent(strewn: Database) -> None:
    inspect(strewn, recordings=3, chunks=10, seconds=60)
    progress = _progress(strewn)
    everything = rows(
        strewn,
        "SELECT count(DISTINCT recording_id) AS recordings,"
        " (SELECT count(*) FROM transcript_chunks) AS chunks"
        " FROM (SELECT recording_id FROM embedding_queue UNION ALL"
        " SELECT recording_id FROM transcript_chunks) AS every",
    )[0]
    assert (progress.recordings, progress.chunks, progress.looked_until) == (*everything, None)


def test_what_comes_and_goes_during_a_round_disturbs_nothing(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        for recording_id in ("b", "d", "f", "h"):
            add_call(connection, recording_id, talk(recording_id, 20))
    embed()
    _look(database, recordings=2)
    assert _progress(database).looked_until == "d"
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 20))  # behind: the next round's
        add_call(connection, "e", talk("e", 20))  # before: this round's
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'd'")  # where it stands
    embed()
    _run(database, "DELETE FROM transcript_chunks WHERE recording_id IN ('a', 'e')")
    _look(database, recordings=2)
    assert (list(_findings(database)), _progress(database).looked_until) == (["e"], "f")
    _look(database)
    assert (list(_findings(database)), _progress(database).looked_until) == (["e"], None)
    _look(database)
    assert sorted(_findings(database)) == ["a", "e"]


def test_what_was_found_is_looked_at_again_before_its_turn_but_not_all_at_once(
    strewn: Database,
) -> None:
    inspect(strewn)
    (oldest, *others) = rows(
        strewn, "SELECT recording_id FROM integrity_findings ORDER BY found_at, recording_id"
    )
    _run(strewn, "DELETE FROM transcript_chunks; UPDATE embedding_queue SET chunk_count = 0")
    _run(
        strewn,
        "UPDATE integrity_progress SET looked_until ="
        " (SELECT max(recording_id) FROM integrity_findings)",
    )
    _look(strewn, recordings=10)
    assert oldest[0] not in _findings(strewn)
    assert sorted(_findings(strewn)) == sorted(id for (id,) in others)


def test_what_is_looked_at_again_is_bounded_in_chunks_too_but_one_at_least(
    strewn: Database,
) -> None:
    inspect(strewn)
    with strewn.transaction() as connection:
        every = found_broken(connection)
        again = {
            chunks: [
                row.recording_id
                for row in sql.found_before(connection, recordings=100, chunks=chunks)
            ]
            for chunks in (1, 50, 1000)
        }
    assert again[1] == every[:1]
    assert again[1000] == every
    assert 1 < len(again[50]) < len(every)
    assert again[50] == every[: len(again[50])]


def test_nobody_waits_for_an_inspection(published: Database, database_url: str) -> None:
    before = _progress(published)
    with Database(database_url) as other, other.transaction() as connection:
        assert sql.hold_integrity_progress(connection) is not None
        _look(published)
        assert _progress(published) == before
    _look(published)
    assert _progress(published).inspected_at is not None


def test_a_look_that_is_not_taken_loses_no_progress(published: Database, database_url: str) -> None:
    _look(published, recordings=1)
    before = _progress(published)
    assert before.looked_until == "a"
    _run(published, BREAKAGES["a vector is gone"][0].replace("'a'", "'b'"))
    name = rows(published, "SELECT current_database()")[0][0]
    _run(published, f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
    with psycopg.connect(database_url) as other, Database(database_url) as hurried:
        other.execute("LOCK TABLE integrity_findings")
        with pytest.raises(StatementTimeoutError):
            _look(hurried)
        assert _progress(published) == before
        other.rollback()
    _look(published)
    assert list(_findings(published)) == ["b"]
    assert _progress(published).looked_until is None


def test_a_window_that_takes_too_long_is_made_smaller(strewn: Database, database_url: str) -> None:
    name = rows(strewn, "SELECT current_database()")[0][0]
    chunks = rows(strewn, "SELECT count(*) FROM transcript_chunks")[0][0]
    assert chunks > 150
    _run(
        strewn,
        "ALTER TABLE transcript_chunks RENAME TO slow;"
        "CREATE VIEW transcript_chunks AS"
        " SELECT * FROM slow WHERE pg_sleep(0.01) IS NOT NULL;"
        f"ALTER DATABASE {name} SET statement_timeout = '1s'",
    )
    with Database(database_url) as hurried:
        inspect(hurried, chunks=150, seconds=60)
    assert _progress(strewn).looked_until is None
    assert _progress(strewn).chunks == chunks


def _recorders_and_workers(url: str, embed: Embed) -> None:
    """Edits, deletions and new calls, each of them embedded."""
    with Database(url) as own:
        for turn in range(12):
            with own.transaction() as connection:
                connection.execute(
                    "UPDATE fathom_transcripts SET edited_text = %s WHERE position %% 5 = 0",
                    [f"turn {turn}"],
                )
                connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'come-go'")
            embed(run_id=str(uuid.uuid4()))
            with own.transaction() as connection:
                add_call(connection, "come-go", talk("come-go", 30))
            embed(run_id=str(uuid.uuid4()))


def test_publications_withdrawals_sweeps_and_other_inspections_meanwhile_are_no_findings(
    database: Database, database_url: str, embed: Embed
) -> None:
    with database.transaction() as connection:
        for number in range(6):
            add_call(connection, f"r{number}", talk(str(number), 30))
    embed()
    ended = threading.Event()

    def again_and_again(work: Callable[[Database], Any]) -> int:
        times = 0
        with Database(database_url) as own:
            while not ended.is_set():
                work(own)
                assert _findings(own) == {}
                times += 1
        return times

    with ThreadPoolExecutor() as threads:
        others = [
            threads.submit(again_and_again, work)
            for work in (sweep, *[partial(_look, recordings=2, chunks=5)] * 2)
        ]
        try:
            threads.submit(_recorders_and_workers, database_url, embed).result()
        finally:
            ended.set()
        assert all(other.result() > 5 for other in others)
    while _progress(database).looked_until is not None:
        _look(database)
    assert _findings(database) == {}
