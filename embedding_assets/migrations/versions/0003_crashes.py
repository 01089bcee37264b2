"""What was in the hands of a run that died is suspect, and is taken in ever smaller groups."""

from alembic import op

revision = "0003"
down_revision = "0002"

# Claims look for the least suspect of what is due, and take that first.
CRASHES = """
ALTER TABLE embedding_queue ADD COLUMN crashes smallint NOT NULL DEFAULT 0 CHECK (crashes >= 0);
DROP INDEX embedding_queue_due;
CREATE INDEX embedding_queue_due ON embedding_queue (crashes, next_attempt_at, recording_id)
    WHERE status IN ('pending', 'failed');
"""

# What changed may be harmless now.
ENQUEUE = """
CREATE OR REPLACE FUNCTION enqueue_recordings(ids text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO embedding_queue AS queued (recording_id)
    SELECT DISTINCT id FROM unnest(ids) AS id WHERE id IS NOT NULL ORDER BY id
    ON CONFLICT (recording_id) DO UPDATE SET
        status = CASE queued.status WHEN 'processing' THEN 'processing' ELSE 'pending' END,
        attempts = 0,
        recoveries = 0,
        crashes = 0,
        next_attempt_at = now(),
        enqueued_at = now()
$$;
"""

OLD_ENQUEUE = ENQUEUE.replace("        crashes = 0,\n", "")

# Replacing a function unpins it; see 0001.
PIN_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION enqueue_recordings(text[]) SET search_path = %I, pg_temp',
                   current_schema());
END $$;
"""


def upgrade() -> None:
    """Adds the count of crashes, and resets it on a change."""
    for statements in (CRASHES, ENQUEUE, PIN_SEARCH_PATH):
        op.execute(statements)


def downgrade() -> None:
    """Forgets who was suspected."""
    op.execute(OLD_ENQUEUE)
    op.execute(PIN_SEARCH_PATH)
    op.execute("""
        DROP INDEX embedding_queue_due;
        ALTER TABLE embedding_queue DROP COLUMN crashes;
        CREATE INDEX embedding_queue_due ON embedding_queue (next_attempt_at, recording_id)
            WHERE status IN ('pending', 'failed');
    """)
