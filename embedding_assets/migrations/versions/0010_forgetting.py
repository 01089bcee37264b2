"""What was forgotten: the proof, and what must not come in again."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

# The calls that were there before 0009; its triggers follow all that changes since, as this does.
CALLS = """
SELECT recording_id FROM (
    SELECT recording_id FROM published_recordings
    UNION SELECT recording_id FROM call_details
    UNION SELECT recording_id FROM call_people) AS known
WHERE recording_id > :after ORDER BY recording_id LIMIT 5000
"""
HOLD = """
SELECT FROM embedding_queue WHERE recording_id = ANY (CAST(:ids AS text[]))
ORDER BY recording_id FOR UPDATE
"""
DERIVE = "SELECT derive_call_readers(CAST(:ids AS text[]))"

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


def prepare(begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
    """Derives who may see which call, of a few at once: in 0009 publishing would wait for it."""
    ids = [""]
    while ids:
        with begin() as connection:
            ids = list(connection.scalars(sa.text(CALLS), {"after": ids[-1]}))
            connection.execute(sa.text(HOLD), {"ids": ids})
            connection.execute(sa.text(DERIVE), {"ids": ids})


def upgrade() -> None:
    """Creates the tables."""
    op.execute(FORGETTING)


def downgrade() -> None:
    """Drops them, with the proofs."""
    op.execute("DROP TABLE forgotten_people, forgotten_calls, forgettings")
