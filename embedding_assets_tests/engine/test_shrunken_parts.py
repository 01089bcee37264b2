"""Parts of the vector index that lost vectors: built again with what is left, or dropped."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from embedding_assets.engine import vector_index
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.errors import TransientError
from embedding_assets.engine.vector_index import Builder, Part, Policy, Tail, next_range
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets_tests.calls import rows

MODEL = "test/model/64"
OTHER = "test/other/64"
DIMENSIONS = 64
POLICY = Policy(tail_rows=100, fan_in=3, largest=10_000)
NO_TAIL = Tail(0, 0)


def _part(from_id: int, to_id: int, built_on: int, live: int) -> Part:
    return Part(f"p{from_id}", MODEL, from_id, to_id, "sealed", built_on, live)


# What is built next.


def test_a_part_that_kept_half_is_left_alone() -> None:
    assert next_range([_part(0, 100, 100, 50)], NO_TAIL, POLICY) is None


def test_a_part_that_lost_most_is_built_again() -> None:
    assert next_range([_part(0, 100, 100, 49)], NO_TAIL, POLICY) == (0, 100)


def test_it_takes_in_the_neighbours_that_fit_into_what_it_once_held() -> None:
    large, small = _part(0, 500, 500, 500), _part(500, 530, 30, 30)
    shrunken, next_one = _part(530, 630, 100, 20), _part(630, 680, 50, 50)
    assert next_range([large, small, shrunken, next_one], NO_TAIL, POLICY) == (500, 680)


def test_the_tail_comes_before_it() -> None:
    assert next_range([_part(0, 100, 100, 1)], Tail(100, 300), POLICY) == (100, 300)


def test_merges_go_by_what_parts_hold_now() -> None:
    parts = [_part(n * 8_000, n * 8_000 + 8_000, 8_000, 4_000) for n in range(3)]
    assert next_range([*parts[:2], _part(16_000, 18_000, 2_000, 2_000)], NO_TAIL, POLICY) is None
    two_thirds = Policy(tail_rows=100, fan_in=2, largest=10_000)
    assert next_range(parts, NO_TAIL, two_thirds) == (0, 16_000)


# In the database.


@pytest.fixture
def builder(database_url: str) -> Builder:
    return Builder(database_url, memory="64MB", workers=0)


def _fill(database: Database, count: int, model: str = MODEL) -> None:
    draw = np.random.default_rng(len(rows(database, "SELECT FROM chunk_embeddings")))
    vectors = draw.standard_normal((count, DIMENSIONS)).astype(np.float32)
    stored = [VectorRow(draw.bytes(32), each, 1) for each in vectors]
    with database.transaction() as connection:
        sql.add_model(connection, model=model, dimensions=DIMENSIONS)
    store_vectors(database, model, stored, InsertBatch(500))


def _build(database: Database, builder: Builder) -> list[str]:
    """What the job does: builds until nothing is due, drops what is read no more."""
    built = []
    while (part := vector_index.begin(database, POLICY)) is not None:
        built.append(builder.build(database, part).part.index_name)
    builder.drop(database, vector_index.replaced_parts(database))
    return built


def _delete(database: Database, condition: str) -> None:
    """Deletes vectors, and lets Postgres learn of it as autovacuum does."""
    with database.transaction() as connection:
        connection.execute(f"DELETE FROM chunk_embeddings WHERE {condition}")  # type: ignore[call-overload]  # noqa: S608
    with database.session() as connection:
        connection.execute("VACUUM ANALYZE chunk_embeddings")


def _parts(database: Database) -> list[tuple[int, int, int]]:
    query = "SELECT from_id, to_id, rows FROM vector_index_parts WHERE state = 'sealed' ORDER BY 1"
    return [tuple(row) for row in rows(database, query)]


def _indexes(database: Database) -> set[str]:
    query = "SELECT indexname FROM pg_indexes WHERE tablename = 'chunk_embeddings'"
    return {row[0] for row in rows(database, query) if row[0].startswith("vector_part_")}


def _waits(database: Database) -> bool:
    """Whether a tick would start the job; a tick may only read."""
    with database.transaction(snapshot=True) as connection:
        return vector_index.waiting(connection, POLICY)


def _bytes(database: Database) -> int:
    query = "SELECT sum(pg_relation_size(to_regclass(index_name))) FROM vector_index_parts"
    return int(rows(database, query)[0][0])


def test_a_part_that_lost_most_is_built_again_under_its_name_and_is_smaller(
    database: Database, builder: Builder
) -> None:
    _fill(database, 1_000)
    (name,) = _build(database, builder)
    before = _bytes(database)
    _delete(database, "mod(id, 3) > 0")
    assert _waits(database)
    assert _build(database, builder) == [name]
    assert [size for _, _, size in _parts(database)] == [333]
    assert _indexes(database) == {name}
    assert _bytes(database) < 0.6 * before
    assert not _waits(database)


def test_a_part_that_lost_a_third_is_not(database: Database, builder: Builder) -> None:
    _fill(database, 300)
    _build(database, builder)
    _delete(database, "mod(id, 3) = 0")
    assert not _waits(database)
    assert _build(database, builder) == []


def test_a_shrunken_part_is_merged_with_a_small_neighbour(
    database: Database, builder: Builder
) -> None:
    _fill(database, 1_000)
    _build(database, builder)
    _fill(database, 120)
    _build(database, builder)
    ((_, border, _), (_, end, _)) = _parts(database)
    _delete(database, f"id < {border} AND mod(id, 10) > 0")
    assert _waits(database)
    assert len(_build(database, builder)) == 1
    assert _parts(database) == [(0, end, 220)]
    assert len(_indexes(database)) == 1


def test_a_part_without_vectors_is_dropped_and_the_others_stay(
    database: Database, builder: Builder
) -> None:
    _fill(database, 150)
    _fill(database, 400, OTHER)
    names = _build(database, builder)
    _delete(database, f"model = '{MODEL}'")  # a replaced one
    assert _waits(database)
    assert _build(database, builder) == []
    assert _indexes(database) == {names[1]}
    assert not _waits(database)


def test_what_is_stored_after_a_part_was_dropped_gets_one_again(
    database: Database, builder: Builder
) -> None:
    _fill(database, 150)
    _build(database, builder)
    _delete(database, "true")
    _build(database, builder)
    assert _parts(database) == []
    _fill(database, 110)
    _build(database, builder)
    assert [size for _, _, size in _parts(database)] == [110]


def test_an_estimate_that_is_wrong_rebuilds_nothing(database: Database, builder: Builder) -> None:
    _fill(database, 200)
    (name,) = _build(database, builder)
    with database.transaction() as connection:
        connection.execute("UPDATE pg_class SET reltuples = 3 WHERE relname = %s", [name])
    assert not _waits(database)
    assert _build(database, builder) == []
    assert _parts(database) != []


def test_a_rebuild_that_was_interrupted_is_made_again(
    database: Database, database_url: str, builder: Builder
) -> None:
    _fill(database, 2_000)
    (name,) = _build(database, builder)
    _delete(database, "mod(id, 4) > 0")
    part = vector_index.begin(database, POLICY)
    assert part is not None
    with (
        psycopg.connect(database_url) as writer,
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url, autocommit=True) as killer,
    ):
        writer.execute("DELETE FROM chunk_embeddings WHERE id = 4")  # which the build waits for
        running = pool.submit(builder.build, database, part)
        while not running.done():
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index"
                " WHERE datname = current_database() AND phase LIKE 'waiting%'"
            )
            time.sleep(0.05)
        with pytest.raises(TransientError):
            running.result()
        writer.rollback()
    assert name in _indexes(database)
    assert _waits(database)
    assert _build(database, builder) == [name]
    assert _indexes(database) == {name}
    assert [size for _, _, size in _parts(database)] == [500]
