"""What was forgotten: the proof, and what must not come in again."""

from alembic import op

revision = "0010"
down_revision = "0009"

FORGETTING = """
-- Each row is one request to forget: what, when, how much, and what could not be reached.
CREATE TABLE forgettings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    request jsonb NOT NULL, -- addresses as SHA-256 alone
    counts jsonb NOT NULL, -- rows by table
    not_reached text[] NOT NULL DEFAULT '{}'
);

-- Calls that are not taken again, whoever brings them.
CREATE TABLE forgotten_calls (
    recording_id text PRIMARY KEY,
    content_hash bytea CHECK (octet_length(content_hash) = 32), -- of what was said and when
    forgotten_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX forgotten_calls_content_hash ON forgotten_calls (content_hash);

-- Addresses of people whose words are not taken again, as SHA-256 of the small letters.
CREATE TABLE forgotten_people (
    email_hash bytea PRIMARY KEY CHECK (octet_length(email_hash) = 32),
    forgotten_at timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Creates the tables."""
    op.execute(FORGETTING)


def downgrade() -> None:
    """Drops them, with the proofs."""
    op.execute("DROP TABLE forgotten_people, forgotten_calls, forgettings")
