"""What parts of the vector index are graphs of: vectors in half precision, or long ones' signs."""

import numpy as np
import psycopg
import pytest

from embedding_assets.engine import vector_index
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.vector_index import Builder, Policy
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets.migrations import migrate
from embedding_assets.search.search import nearest_chunks
from embedding_assets_tests.calls import rows

POLICY = Policy(tail_rows=100, fan_in=9)
PUBLISH = """
INSERT INTO transcript_chunks (recording_id, chunk_index, chunk_text, content_hash, token_count,
                               speakers, first_position, last_position)
SELECT 'r' || id, 0, 'text', content_hash, 1, '{}', 0, 0 FROM chunk_embeddings
ON CONFLICT DO NOTHING
"""


def _fill(database: Database, dimensions: int, count: int) -> None:
    """Published vectors of a model with so many dimensions, which differ in few directions."""
    draw = np.random.default_rng(count)
    directions = np.random.default_rng(1).standard_normal((24, dimensions))
    vectors = draw.standard_normal((count, 24)) @ directions
    stored = [VectorRow(draw.bytes(32), each, 1) for each in vectors.astype(np.float32)]
    model = f"test/model/{dimensions}"
    with database.transaction() as connection:
        sql.add_model(connection, model=model, dimensions=dimensions)
    store_vectors(database, model, stored, InsertBatch(500))
    with database.transaction() as connection:
        connection.execute(PUBLISH)


def _recall(connection: Connection, dimensions: int) -> float:
    """The share of the ten truly nearest chunks that search finds for questions far from them."""
    draw = np.random.default_rng(7)
    directions = np.random.default_rng(1).standard_normal((24, dimensions))
    found = 0
    for _ in range(20):
        query = (draw.standard_normal(24) @ directions).astype(np.float32)
        exact = connection.execute(
            "SELECT 'r' || id FROM chunk_embeddings ORDER BY embedding <=> %s LIMIT 10", [query]
        ).fetchall()
        near = nearest_chunks(connection, query, 10)
        found += len({row[0] for row in exact} & {row.recording_id for row in near})
    return found / 200


@pytest.mark.parametrize(
    ("dimensions", "key"), [(384, "halfvec(384)"), (1024, "bit(1024)"), (1536, "bit(1536)")]
)
def test_search_finds_what_is_near_by_parts_and_a_tail_of_any_dimensions(
    database: Database, database_url: str, dimensions: int, key: str
) -> None:
    _fill(database, dimensions, 1_500)
    part = vector_index.begin(database, POLICY)
    assert part is not None
    Builder(database_url, memory="64MB", workers=0).build(database, part)
    _fill(database, dimensions, 90)
    query = "SELECT indexdef FROM pg_indexes WHERE indexname = %s"
    assert key in rows(database, query, [part.index_name])[0][0]
    with database.transaction() as connection:
        connection.execute("ANALYZE")
        statement = connection.execute("SELECT nearest_vectors_statement(100)").fetchone()
        assert statement is not None
        explained = connection.execute(
            "EXPLAIN " + statement[0].replace("$1", "%(query)s"),
            {"query": np.ones(dimensions, np.float32)},
        ).fetchall()
        assert f"using {part.index_name}" in "\n".join(row[0] for row in explained)
        assert _recall(connection, dimensions) >= 0.95


# Parts as the revision before built them, each on signs.
BUILT_ON_SIGNS = """
INSERT INTO embedding_models (model, dimensions, is_live)
VALUES ('few', 384, true), ('many', 1536, false);
INSERT INTO vector_index_parts (index_name, model, from_id, to_id, state, rows, sealed_at)
VALUES ('part_few', 'few', 0, 9, 'sealed', 0, now()),
       ('part_many', 'many', 0, 9, 'sealed', 0, now());
CREATE INDEX part_few ON chunk_embeddings USING hnsw ((signs::bit(384)) bit_hamming_ops)
    WHERE model = 'few' AND id >= 0 AND id < 9;
CREATE INDEX part_many ON chunk_embeddings USING hnsw ((signs::bit(1536)) bit_hamming_ops)
    WHERE model = 'many' AND id >= 0 AND id < 9;
"""


def test_the_migration_drops_the_parts_that_are_built_on_something_else(
    empty_database_url: str,
) -> None:
    assert migrate(empty_database_url, "0011")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(BUILT_ON_SIGNS)
    assert migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        left = connection.execute("SELECT index_name FROM vector_index_parts").fetchall()
        assert left == [("part_many",)]
        there = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'part\\_%'"
        ).fetchall()
        assert there == [("part_many",)]
