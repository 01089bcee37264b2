"""Readers of calls are derived with one plan for all, and not where a statement changed nothing."""

from alembic import op

from embedding_assets.migrations.functions import as_before

revision = "0012"
down_revision = "0011"

# To plan the derivation takes longer than to carry it out, and publishing does it for every call.
QUICKER = """
CREATE OR REPLACE FUNCTION follow_readers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids text[] := ARRAY(SELECT DISTINCT recording_id FROM changed);
BEGIN
    IF ids = '{}' THEN -- a statement that changed no row
        RETURN NULL;
    END IF;
    -- First the rows that a publication holds, too: one after the other, and each sees what the
    -- one before it said.
    PERFORM FROM embedding_queue WHERE recording_id = ANY (ids) ORDER BY recording_id FOR UPDATE;
    PERFORM derive_call_readers(ids);
    RETURN NULL;
END $$;
"""

# As 0009 did: replacing a function forgets its settings.
PIN = """
DO $$
BEGIN
    EXECUTE (
        SELECT format('ALTER FUNCTION follow_readers() SET search_path = %I, %s, pg_temp',
                      current_schema(), extnamespace::regnamespace)
        FROM pg_extension WHERE extname = 'vector');
END $$;
"""


def upgrade() -> None:
    """Replaces the function behind the triggers."""
    op.execute(QUICKER)
    op.execute(PIN)


def downgrade() -> None:
    """Puts it back."""
    op.execute(as_before("0009_access.sql", "follow_readers"))
    op.execute(PIN)
