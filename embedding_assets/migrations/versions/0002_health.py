"""What health is told from: attempts that were given back, and what integrity checks found."""

from alembic import op

revision = "0002"
down_revision = "0001"

# What a run gives back has cost something all the same, and says why where it can.
RELEASED = """
ALTER TABLE embedding_attempts
    DROP CONSTRAINT embedding_attempts_outcome_check,
    DROP CONSTRAINT a_failed_attempt_has_a_reason,
    ADD CONSTRAINT embedding_attempts_outcome_check
        CHECK (outcome IN ('published', 'failed', 'source_gone', 'released')),
    ADD CONSTRAINT a_failed_attempt_has_a_reason CHECK (
        (error_kind IS NULL) = (error IS NULL)
        AND CASE outcome WHEN 'failed' THEN error_kind IS NOT NULL
                         WHEN 'released' THEN true
                         ELSE error_kind IS NULL END);
"""

# The newest of each is asked for at every look at the system's health.
NEWEST = """
CREATE INDEX embedding_attempts_published ON embedding_attempts (finished_at)
    WHERE outcome = 'published';
CREATE INDEX embedding_attempts_configuration ON embedding_attempts (finished_at)
    WHERE error_kind = 'configuration';
"""

INTEGRITY = """
CREATE TABLE integrity_findings (
    recording_id text PRIMARY KEY,
    problem text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE integrity_progress (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    looked_until text, -- the last recording that was looked at; NULL: the next round starts
    round_started_at timestamptz NOT NULL DEFAULT now(),
    last_round_ended_at timestamptz,
    inspected_at timestamptz,
    recordings integer NOT NULL DEFAULT 0 CHECK (recordings >= 0), -- in the last inspection
    chunks integer NOT NULL DEFAULT 0 CHECK (chunks >= 0)
);
INSERT INTO integrity_progress DEFAULT VALUES;
"""


def upgrade() -> None:
    """Lets attempts be given back, and adds what the health query reads."""
    for statements in (RELEASED, NEWEST, INTEGRITY):
        op.execute(statements)


def downgrade() -> None:
    """Forgets what was given back: the older constraints have no word for it."""
    op.execute("DROP TABLE integrity_findings, integrity_progress")
    op.execute("DROP INDEX embedding_attempts_published, embedding_attempts_configuration")
    op.execute("DELETE FROM embedding_attempts WHERE outcome = 'released'")
    op.execute("""
        ALTER TABLE embedding_attempts
            DROP CONSTRAINT embedding_attempts_outcome_check,
            DROP CONSTRAINT a_failed_attempt_has_a_reason,
            ADD CONSTRAINT embedding_attempts_outcome_check
                CHECK (outcome IN ('published', 'failed', 'source_gone')),
            ADD CONSTRAINT a_failed_attempt_has_a_reason CHECK (
                (outcome = 'failed') = (error_kind IS NOT NULL)
                AND (error_kind IS NULL) = (error IS NULL))
    """)
