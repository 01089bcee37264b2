"""The schema says beside which code it works, so that code of another version ends in time."""

from alembic import op

revision = "0014"
down_revision = "0013"
oldest_code = "0014"  # the first that asks

# Workers of before 0005 that went on while it ran published without what search reads: again, at no
# cost.
MEND = """
SELECT enqueue_recordings(ARRAY(
    SELECT queued.recording_id FROM embedding_queue AS queued
    WHERE queued.status = 'completed' AND queued.chunk_count > 0 AND NOT EXISTS (
        SELECT FROM published_recordings AS published
        WHERE published.recording_id = queued.recording_id)));
"""


def upgrade() -> None:
    """Adds the oldest revision whose code may work on the schema."""
    op.execute("ALTER TABLE embedding_assets_version ADD COLUMN oldest_code text")
    op.execute(MEND)


def downgrade() -> None:
    """Forgets it."""
    op.execute("ALTER TABLE embedding_assets_version DROP COLUMN oldest_code")
