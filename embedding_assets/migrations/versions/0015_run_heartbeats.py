"""Runs say that they are alive, so that the run of a killed process is noticed in minutes."""

from alembic import op

revision = "0015"
down_revision = "0014"
oldest_code = "0014"  # it leaves the table alone


def upgrade() -> None:
    """Adds the table."""
    op.execute(
        """
        CREATE TABLE run_heartbeats (
            run_id text PRIMARY KEY,
            beaten_at timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE run_heartbeats IS 'When each run of the last days last said that it is'
            ' alive. Written by the runs, read by the sensor that reports dead ones.';
        """
    )


def downgrade() -> None:
    """Takes it away."""
    op.execute("DROP TABLE run_heartbeats")
