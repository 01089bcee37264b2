"""Texts that are embedded by the provider's batch API, and the batches they are in."""

from alembic import op

revision = "0007"
down_revision = "0006"

BATCHES = """
-- One file of requests to a batch API, from before it is sent until its answers are stored.
CREATE TABLE embedding_batches (
    batch_id uuid PRIMARY KEY,
    model text NOT NULL,
    state text NOT NULL CHECK (state IN ('planned', 'submitted', 'ended')),
    inputs integer NOT NULL CHECK (inputs > 0),
    planned_tokens bigint NOT NULL CHECK (planned_tokens > 0),
    deadline timestamptz NOT NULL, -- until then, no worker sends these texts
    not_before timestamptz NOT NULL DEFAULT now(), -- the next look at it, or the next try to send
    input_file text, -- the provider's names
    provider_batch text,
    provider_status text,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz,
    ended_at timestamptz,
    embedded integer, -- texts whose vectors it brought
    CONSTRAINT a_submitted_batch_has_a_name CHECK (
        state <> 'submitted' OR num_nulls(provider_batch, submitted_at) = 0),
    CONSTRAINT an_ended_batch_says_when CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX embedding_batches_open ON embedding_batches (created_at) WHERE state <> 'ended';

-- The texts of batches that have not ended, each in one of them.
CREATE TABLE embedding_batch_inputs (
    model text NOT NULL,
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    batch_id uuid NOT NULL REFERENCES embedding_batches,
    recording_id text NOT NULL, -- one that says it
    PRIMARY KEY (model, content_hash)
);
CREATE INDEX embedding_batch_inputs_batch ON embedding_batch_inputs (batch_id);

-- What the server of a model has told of the account, as far as it is worth remembering.
CREATE TABLE embedding_accounts (
    model text PRIMARY KEY,
    tokens_per_minute bigint CHECK (tokens_per_minute > 0),
    lacks_batches boolean NOT NULL DEFAULT false,
    told_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE embedding_attempts DROP CONSTRAINT embedding_attempts_lane_check,
    ADD CONSTRAINT embedding_attempts_lane_check
        CHECK (lane IN ('standard', 'small_batch', 'batch'));
"""


def upgrade() -> None:
    """Creates both tables."""
    op.execute(BATCHES)


def downgrade() -> None:
    """Drops them; what batches cost is then counted as a worker's."""
    op.execute("UPDATE embedding_attempts SET lane = 'standard' WHERE lane = 'batch'")
    op.execute(
        "ALTER TABLE embedding_attempts DROP CONSTRAINT embedding_attempts_lane_check,"
        " ADD CONSTRAINT embedding_attempts_lane_check"
        " CHECK (lane IN ('standard', 'small_batch'))"
    )
    op.execute("DROP TABLE embedding_batch_inputs, embedding_batches, embedding_accounts")
