"""The vector index in parts: what is built when, that search finds the same, and what breaks it."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest

from embedding_assets.engine import vector_index
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.engine.vector_index import Builder, Part, Policy, Tail, next_range
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets.search.search import nearest_chunks
from embedding_assets_tests.calls import rows

MODEL = "test/model/64"
DIMENSIONS = 64
POLICY = Policy(tail_rows=100, fan_in=3, largest=10_000)
PUBLISH = """
INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text, content_hash, token_count,
                               speakers, first_position, last_position)
SELECT 'r' || id / 10, mod(id, 10), 'text ' || id, content_hash, 1, '{}', 0, 0
FROM chunk_embeddings WHERE model = %s
ON CONFLICT DO NOTHING
"""


def _part(from_id: int, to_id: int, count: int | None = None) -> Part:
    size = count or to_id - from_id
    return Part(f"p{from_id}", MODEL, from_id, to_id, "sealed", size, size)


# What is built next.


def test_a_short_tail_is_left_alone() -> None:
    assert next_range([], Tail(99, 100), POLICY) is None


def test_a_long_tail_becomes_a_part_up_to_its_end() -> None:
    assert next_range([], Tail(100, 321), POLICY) == (0, 321)
    assert next_range([_part(0, 321)], Tail(100, 500), POLICY) == (321, 500)


def test_neighbours_of_like_size_are_merged_the_oldest_first() -> None:
    like = [_part(0, 100), _part(100, 210), _part(210, 300), _part(300, 400)]
    assert next_range(like, Tail(0, 0), POLICY) == (0, 300)


def test_neighbours_of_unlike_size_are_not_merged() -> None:
    assert (
        next_range([_part(0, 900), _part(900, 1000), _part(1000, 1100)], Tail(0, 0), POLICY) is None
    )


def test_no_merge_makes_a_part_larger_than_allowed() -> None:
    assert (
        next_range([_part(n * 4_000, n * 4_000 + 4_000) for n in range(3)], Tail(0, 0), POLICY)
        is None
    )


def test_the_tail_comes_before_a_merge() -> None:
    like = [_part(0, 100), _part(100, 200), _part(200, 300)]
    assert next_range(like, Tail(100, 400), POLICY) == (300, 400)


def test_the_ranges_of_a_search_cover_every_id_once(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO embedding_models (model, dimensions, is_live) VALUES (%s, 64, true)",
            [MODEL],
        )
        for start, end in ((10, 20), (20, 30), (40, 50)):
            connection.execute(
                "INSERT INTO vector_index_parts"
                " (index_name, model, from_id, to_id, state, rows, sealed_at)"
                " VALUES (%s, %s, %s, %s, 'sealed', 10, now())",
                [f"part_{start}", MODEL, start, end],
            )
        row = connection.execute("SELECT nearest_vectors_statement(200)").fetchone()
    assert row is not None
    in_part = r"id >= (\d+) AND stored.id < (\d+)"
    outside = r"\(model, id\) >= \('[^']+', (\d+)\) AND \(model, id\) < \('[^']+', (\d+)\)"
    found = [
        (int(match[1] or match[3]), int(match[2] or match[4]), match[1] is not None)
        for match in re.finditer(f"{in_part}|{outside}", row[0])
    ]
    assert [start for start, _, _ in found] == [0] + [end for _, end, _ in found[:-1]]
    assert [is_part for _, _, is_part in found] == [False, True, True, False, True, False]
    assert found[-1][1] > 2**62


# Building.


@pytest.fixture
def builder(database_url: str) -> Builder:
    return Builder(database_url, memory="64MB", workers=0)


Fill = Callable[[int], None]


@pytest.fixture
def fill(database: Database) -> Fill:
    """Adds so many vectors of the test model, each published as a chunk."""
    draw = np.random.default_rng(0)
    topics = draw.standard_normal((20, DIMENSIONS))

    def fill(count: int, model: str = MODEL, *, is_published: bool = True) -> None:
        vectors = topics[draw.integers(20, size=count)] + 0.3 * draw.standard_normal(
            (count, DIMENSIONS)
        )
        with database.transaction() as connection:
            sql.add_model(connection, model=model, dimensions=DIMENSIONS)
        store_vectors(
            database,
            model,
            [VectorRow(draw.bytes(32), each, 1) for each in vectors.astype(np.float32)],
            InsertBatch(500),
        )
        if is_published:
            with database.transaction() as connection:
                connection.execute(PUBLISH, [model])

    return fill


def _maintain(database: Database, builder: Builder, policy: Policy = POLICY) -> list[str]:
    """Builds until nothing is left to build; the names, in order."""
    built = []
    while (part := vector_index.begin(database, policy)) is not None:
        built.append(builder.build(database, part).part.index_name)
    builder.drop(database, vector_index.replaced_parts(database))
    return built


def _sealed(database: Database) -> list[tuple[int, int, int]]:
    query = "SELECT from_id, to_id, rows FROM vector_index_parts WHERE state = 'sealed' ORDER BY 1"
    return [tuple(row) for row in rows(database, query)]


def _indexes(database: Database) -> set[str]:
    query = "SELECT indexname FROM pg_indexes WHERE tablename = 'chunk_embeddings'"
    return {row[0] for row in rows(database, query) if row[0].startswith("vector_part_")}


def _recall(database: Database, questions: int = 20) -> float:
    """The share of the ten truly nearest chunks that search finds."""
    draw = np.random.default_rng(7)
    found = wanted = 0
    with database.transaction() as connection:
        stored = connection.execute("SELECT embedding FROM chunk_embeddings").fetchall()
        for _ in range(questions):
            near_by = stored[int(draw.integers(len(stored)))][0].to_numpy()
            query = near_by + 0.1 * draw.standard_normal(DIMENSIONS).astype(np.float32)
            exact = connection.execute(
                "SELECT recording_id, chunk_index FROM chunk_embeddings JOIN transcript_chunks"
                " USING (content_hash) ORDER BY embedding <=> %s LIMIT 10",
                [query],
            ).fetchall()
            near = nearest_chunks(connection, query, 10)
            truth = {(row.recording_id, row.chunk_index) for row in exact}
            found += len(truth & {(row.recording_id, row.chunk_index) for row in near})
            wanted += len(truth)
    return found / wanted


def _explained(connection: Connection, how: str) -> list[Any]:
    """The plan of the statement that search runs inside of its function."""
    statement = connection.execute("SELECT nearest_vectors_statement(200)").fetchone()
    assert statement is not None
    query = statement[0].replace("$1", "%(query)s")
    values = {"query": np.ones(DIMENSIONS, np.float32)}
    return connection.execute(f"{how} {query}", values).fetchall()  # type: ignore[call-overload]


def test_the_tail_is_sealed_and_small_parts_are_merged(
    database: Database, builder: Builder, fill: Fill
) -> None:
    for _ in range(3):
        fill(120)
        _maintain(database, builder)
    ((from_id, _, count),) = _sealed(database)
    assert (from_id, count) == (0, 360)
    assert len(_indexes(database)) == 1
    fill(50)
    assert _maintain(database, builder) == []
    assert not vector_index.replaced_parts(database)


def test_search_finds_the_same_with_parts_a_tail_and_none(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(700)
    assert _recall(database) >= 0.95
    _maintain(database, builder)
    fill(250)
    _maintain(database, builder, Policy(tail_rows=200, fan_in=9))
    fill(90)
    assert len(_sealed(database)) == 2
    assert _recall(database) >= 0.95


def test_what_was_published_a_moment_ago_is_found(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(200)
    _maintain(database, builder)
    fill(1)
    with database.transaction() as connection:
        newest = connection.execute(
            "SELECT embedding, recording_id, chunk_index FROM chunk_embeddings"
            " JOIN transcript_chunks USING (content_hash) ORDER BY id DESC LIMIT 1"
        ).fetchone()
        assert newest is not None
        best = nearest_chunks(connection, newest[0].to_numpy(), 1)[0]
    assert (best.recording_id, best.chunk_index) == (newest[1], newest[2])


def test_vectors_that_no_chunk_refers_to_do_not_crowd_out_those_that_are_published(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(100)
    fill(3_000, is_published=False)
    _maintain(database, builder)
    with database.transaction() as connection:
        query = np.ones(DIMENSIONS, np.float32)
        assert len(nearest_chunks(connection, query, 50)) == 50


def test_search_reads_the_parts_through_their_indexes(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(3_000)
    _maintain(database, builder)
    fill(10)
    with database.transaction() as connection:
        connection.execute("ANALYZE")
        parts = list(sql.sealed_parts(connection, model=MODEL))
        plan = _explained(connection, "EXPLAIN")
    text = "\n".join(row[0] for row in plan)
    assert f"using {parts[0].index_name}" in text


def test_neither_search_nor_a_tick_reads_what_another_model_has_stored_since(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(3_000)
    _maintain(database, builder)
    fill(20)
    fill(5_000, "test/other/64")
    with database.transaction() as connection:
        connection.execute("ANALYZE")
        (part,) = sql.sealed_parts(connection, model=MODEL)
        counted = "EXPLAIN (ANALYZE) " + sql.tail.sql
        until = {"model": MODEL, "sealed_until": part.to_id, "limit": 10_000}
        plans = [
            _explained(connection, "EXPLAIN (ANALYZE)"),
            connection.execute(counted, until).fetchall(),  # type: ignore[call-overload]
        ]
    for plan in plans:
        text = "\n".join(row[0] for row in plan)
        assert "chunk_embeddings_model_id" in text, text
        assert "Rows Removed by Filter: 5" not in text


def test_each_model_has_parts_of_its_own(database: Database, builder: Builder, fill: Fill) -> None:
    fill(150)
    fill(150, "test/other/64")
    assert len(_maintain(database, builder)) == 2
    models = rows(database, "SELECT model, rows FROM vector_index_parts ORDER BY 1")
    assert [tuple(row) for row in models] == [(MODEL, 150), ("test/other/64", 150)]


def test_a_part_takes_no_more_vectors_than_its_build_has_memory_for(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(250)
    _maintain(database, builder, Policy(tail_rows=20, fan_in=9, largest=100))
    assert [row[2] for row in _sealed(database)] == [100, 100, 50]


def test_a_look_changes_nothing(database: Database, fill: Fill) -> None:
    with database.transaction(snapshot=True) as connection:
        assert not vector_index.waiting(connection, POLICY)
    fill(150)
    with database.transaction(snapshot=True) as connection:
        assert vector_index.waiting(connection, POLICY)


# What breaks.


def test_an_interrupted_build_is_cleaned_up_and_built_again(
    database: Database, database_url: str, builder: Builder, fill: Fill
) -> None:
    fill(3_000)
    part = vector_index.begin(database, POLICY)
    assert part is not None
    with psycopg.connect(database_url) as writer:  # the build must wait for this transaction
        writer.execute("DELETE FROM chunk_embeddings WHERE id = 1")
        failure: list[BaseException] = []

        def build() -> None:
            try:
                builder.build(database, part)
            except TransientError as error:
                failure.append(error)

        running = threading.Thread(target=build)
        running.start()
        killed = False
        with psycopg.connect(database_url, autocommit=True) as killer:
            while running.is_alive():
                killed |= bool(
                    killer.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index"
                        " WHERE phase LIKE 'waiting%'"
                    ).fetchall()
                )
                time.sleep(0.05)
        running.join()
    assert killed
    assert failure
    assert _indexes(database) == {part.index_name}  # invalid, and in nobody's way
    assert _recall(database) >= 0.95

    assert _maintain(database, builder) == [part.index_name]
    assert [row[2] for row in _sealed(database)] == [2_999]


def test_a_build_that_ended_before_it_could_say_so_is_not_made_again(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(200)
    part = vector_index.begin(database, POLICY)
    assert part is not None
    builder.build(database, part)
    with database.transaction() as connection:
        connection.execute("UPDATE vector_index_parts SET state = 'building', rows = NULL")
    before = rows(
        database, "SELECT relfilenode FROM pg_class WHERE relname = %s", [part.index_name]
    )
    assert _maintain(database, builder) == [part.index_name]
    after = rows(database, "SELECT relfilenode FROM pg_class WHERE relname = %s", [part.index_name])
    assert before == after


def test_a_sealed_part_can_be_built_again(database: Database, builder: Builder, fill: Fill) -> None:
    fill(200)
    (name,) = _maintain(database, builder)
    part = vector_index.find(database, name)
    assert part is not None
    assert builder.build(database, part).rows == 200
    assert _indexes(database) == {name}


def test_parts_whose_drop_was_interrupted_are_dropped_later(
    database: Database, builder: Builder, fill: Fill
) -> None:
    fill(200)
    (name,) = _maintain(database, builder)
    with database.transaction() as connection:
        connection.execute("UPDATE vector_index_parts SET state = 'dropping'")
    assert vector_index.replaced_parts(database) == [name]
    builder.drop(database, [name])
    assert _indexes(database) == set()
    assert vector_index.find(database, name) is None


def test_two_runs_do_not_begin_the_same_part_twice(
    database: Database, database_url: str, fill: Fill
) -> None:
    fill(200)
    with Database(database_url) as other:
        first, second = vector_index.begin(database, POLICY), vector_index.begin(other, POLICY)
    assert first == second
    assert len(rows(database, "SELECT FROM vector_index_parts")) == 1


def test_a_role_that_does_not_own_the_table_is_told_so(
    database: Database, database_url: str, fill: Fill
) -> None:
    fill(200)
    part = vector_index.begin(database, POLICY)
    assert part is not None
    with database.transaction() as connection:
        connection.execute("CREATE ROLE index_stranger LOGIN")
        connection.execute("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO index_stranger")
    try:
        url = database_url.replace("//postgres@", "//index_stranger@")
        with pytest.raises(ConfigurationError, match="owner"):
            Builder(url, memory="64MB", workers=0).build(database, part)
    finally:
        with database.transaction() as connection:
            connection.execute("DROP OWNED BY index_stranger")
            connection.execute("DROP ROLE index_stranger")


def test_readers_and_writers_go_on_while_a_part_is_built(
    database: Database, database_url: str, builder: Builder, fill: Fill
) -> None:
    fill(5_000)
    part = vector_index.begin(database, POLICY)
    assert part is not None
    running = threading.Thread(target=builder.build, args=(database, part))
    with Database(database_url) as other:
        running.start()
        done = 0
        while running.is_alive():
            with other.transaction() as connection:
                connection.execute("SET LOCAL lock_timeout = '2s'")
                query = np.ones(DIMENSIONS, np.float32)
                assert len(nearest_chunks(connection, query, 10)) == 10
                connection.execute(
                    "INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)"
                    " VALUES (%s, sha256(%s::text::bytea), %s, 1)",
                    [MODEL, done, query + done],
                )
            done += 1
        running.join()
    assert done > 0
    assert len(_sealed(database)) == 1
