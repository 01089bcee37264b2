"""What the vector index is built of: the vectors' signs, and parts that know their size."""

from alembic import op

revision = "0004"
down_revision = "0003"

# Rewrites the table once, and locks it meanwhile.
SIGNS = """
ALTER TABLE chunk_embeddings
    ADD COLUMN signs bit varying NOT NULL
        GENERATED ALWAYS AS (binary_quantize(embedding)) STORED;
-- A model's newest vectors, also while another model is being filled beside it.
CREATE INDEX chunk_embeddings_model_id ON chunk_embeddings (model, id);
"""

PARTS = """
ALTER TABLE vector_index_parts
    ADD COLUMN rows bigint CHECK (rows >= 0), -- when it was built
    ADD COLUMN sealed_at timestamptz,
    ADD CONSTRAINT a_sealed_part_says_what_it_holds CHECK (
        state = 'building' OR num_nulls(rows, sealed_at) = 0);
CREATE UNIQUE INDEX vector_index_parts_one_is_built ON vector_index_parts (model)
    WHERE state = 'building';
"""


def upgrade() -> None:
    """Adds the column that parts are built on, and what they say of themselves."""
    op.execute(SIGNS)
    op.execute(PARTS)


def downgrade() -> None:
    """Drops the parts, too: their indexes are on the column that goes."""
    op.execute("DELETE FROM vector_index_parts")
    op.execute("DROP INDEX vector_index_parts_one_is_built")
    op.execute(
        "ALTER TABLE vector_index_parts DROP CONSTRAINT a_sealed_part_says_what_it_holds,"
        " DROP COLUMN rows, DROP COLUMN sealed_at"
    )
    op.execute("DROP INDEX chunk_embeddings_model_id")
    op.execute("ALTER TABLE chunk_embeddings DROP COLUMN signs")
