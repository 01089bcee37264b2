"""A claim has a token, and a run that was taken for dead may do nothing more."""

from alembic import op

revision = "0016"
down_revision = "0015"
oldest_code = "0014"  # it leaves both columns alone


def upgrade() -> None:
    """Adds the two columns."""
    op.execute(
        """
        ALTER TABLE embedding_queue ADD COLUMN claim_id uuid;
        COMMENT ON COLUMN embedding_queue.claim_id IS 'The claim of the run that holds the'
            ' recording, which is the id of its attempt: a run that held it before may not write.';
        ALTER TABLE run_heartbeats ADD COLUMN dead_since timestamptz;
        COMMENT ON COLUMN run_heartbeats.dead_since IS 'When this run was taken for dead: it'
            ' claims and writes nothing more, should it live after all.';
        """
    )


def downgrade() -> None:
    """Takes them away."""
    op.execute("ALTER TABLE run_heartbeats DROP COLUMN dead_since")
    op.execute("ALTER TABLE embedding_queue DROP COLUMN claim_id")
