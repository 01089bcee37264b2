"""Parts of the vector index for models of few dimensions: graphs of vectors in half precision."""

from pathlib import Path

from alembic import op

from embedding_assets.migrations.functions import as_before

revision = "0013"
down_revision = "0012"

FOLDER = Path(__file__).parent

# CREATE OR REPLACE takes settings of a function away, see 0005.
PIN = """
DO $$
DECLARE
    path text;
BEGIN
    SELECT format('%I, %s, pg_temp', current_schema(), extnamespace::regnamespace) INTO path
    FROM pg_extension WHERE extname = 'vector';
    EXECUTE 'ALTER FUNCTION nearest_chunk_vectors SET search_path = ' || path;
    ALTER FUNCTION nearest_chunk_vectors SET jit = off;
END $$;
"""

# Until the schedule has built them again, in the next minutes, search compares every vector.
DROP_PARTS = """
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT index_name FROM vector_index_parts JOIN embedding_models USING (model)
        WHERE dimensions < 1024
    LOOP
        EXECUTE format('DROP INDEX IF EXISTS %I', part.index_name);
        DELETE FROM vector_index_parts WHERE index_name = part.index_name;
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Says what parts are built on, and drops those that are built on something else."""
    op.execute((FOLDER / "0013_half_precision_parts.sql").read_text(encoding="utf-8"))
    op.execute(PIN)
    op.execute(DROP_PARTS)


def downgrade() -> None:
    """Puts the functions of the revision before back, which read parts built on signs."""
    op.execute(as_before("0006_quicker_search.sql", "nearest_vectors_statement"))
    op.execute(as_before("0005_search_functions.sql", "nearest_chunk_vectors"))
    op.execute(PIN)
    op.execute("DROP FUNCTION vector_index_key(integer)")
    op.execute(DROP_PARTS)
