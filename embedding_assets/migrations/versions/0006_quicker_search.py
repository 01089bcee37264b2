"""Quicker searches: whole vectors and what is known of the calls are read last, for few rows."""

from pathlib import Path

from alembic import op

from embedding_assets.migrations.functions import as_before

revision = "0006"
down_revision = "0005"

FOLDER = Path(__file__).parent
REPLACED = ("nearest_vectors_statement", "search_transcript_chunks")

# CREATE OR REPLACE takes settings of a function away, see 0005.
PIN = """
DO $$
DECLARE
    path text;
BEGIN
    SELECT format('%I, %s, pg_temp', current_schema(), extnamespace::regnamespace) INTO path
    FROM pg_extension WHERE extname = 'vector';
    EXECUTE 'ALTER FUNCTION search_transcript_chunks SET search_path = ' || path;
    ALTER FUNCTION search_transcript_chunks SET jit = off;
END $$;
"""


def upgrade() -> None:
    """Replaces two functions, and drops the words that 0005 carried over."""
    # Not there: what took long would be lost if somebody used the table all the time.
    op.execute("ALTER TABLE transcript_chunks DROP COLUMN IF EXISTS fts")
    op.execute((FOLDER / "0006_quicker_search.sql").read_text(encoding="utf-8"))
    op.execute(PIN)


def downgrade() -> None:
    """Puts the functions of the revision before back."""
    for name in REPLACED:
        op.execute(as_before("0005_search_functions.sql", name))
    op.execute(PIN)
