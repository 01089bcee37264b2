"""The first tables: sources, queue, attempts, models, vectors, chunks, index parts."""

import sqlalchemy as sa
from alembic import op

from embedding_assets.engine.errors import ConfigurationError

revision = "0001"
down_revision = None

# Recorders' tables. They may be there already, and may belong to somebody else.
CALLS = """
CREATE TABLE fathom_calls (
    recording_id text PRIMARY KEY CHECK (recording_id <> ''),
    user_id text,
    title text NOT NULL,
    recorded_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    duration double precision CHECK (duration >= 0), -- seconds
    url text,
    recorded_by_name text,
    recorded_by_email text,
    source_platform text
);
"""

TRANSCRIPTS = """
CREATE TABLE fathom_transcripts (
    recording_id text NOT NULL REFERENCES fathom_calls ON DELETE CASCADE,
    position integer NOT NULL CHECK (position >= 0),
    speaker_name text,
    speaker_email text,
    start_seconds double precision CHECK (start_seconds >= 0),
    end_seconds double precision CHECK (end_seconds >= start_seconds),
    text text NOT NULL,
    edited_text text, -- wins over text
    is_deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (recording_id, position)
);
"""

SOURCES = {"fathom_calls": CALLS, "fathom_transcripts": TRANSCRIPTS}
COLUMNS = {
    "fathom_calls": ("recording_id", "title"),
    "fathom_transcripts": (
        "recording_id", "position", "speaker_name", "start_seconds", "end_seconds", "text",
        "edited_text", "is_deleted",
    ),
}  # fmt: skip

QUEUE = """
CREATE TABLE embedding_queue (
    recording_id text PRIMARY KEY CHECK (recording_id <> ''),
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'dead_letter')),
    attempts smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- failed ones since the last change
    recoveries smallint NOT NULL DEFAULT 0 CHECK (recoveries >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_by text,
    lease_expires_at timestamptz,
    last_error text,
    error_kind text CHECK (error_kind IN ('transient', 'statement_timeout', 'configuration',
                                          'invalid_input', 'source_gone', 'crashed')),
    transcript_version text, -- of what is published; NULL before the first publication
    chunk_count integer CHECK (chunk_count >= 0),
    token_count bigint CHECK (token_count >= 0),
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    reconciled_at timestamptz NOT NULL DEFAULT now(), -- last compared with the transcript
    CONSTRAINT a_claim_has_holder_and_lease CHECK (
        (status = 'processing') = (claimed_by IS NOT NULL)
        AND (claimed_by IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT a_completed_recording_has_its_figures CHECK (
        status <> 'completed'
        OR num_nulls(completed_at, transcript_version, chunk_count, token_count) = 0),
    CONSTRAINT a_failure_has_a_reason CHECK (
        status NOT IN ('failed', 'dead_letter') OR num_nulls(error_kind, last_error) = 0)
);

CREATE INDEX embedding_queue_due ON embedding_queue (next_attempt_at, recording_id)
    WHERE status IN ('pending', 'failed');
CREATE INDEX embedding_queue_leases ON embedding_queue (lease_expires_at)
    WHERE status = 'processing';
CREATE INDEX embedding_queue_dead_letters ON embedding_queue (next_attempt_at)
    WHERE status = 'dead_letter';
CREATE INDEX embedding_queue_reconciled_at ON embedding_queue (reconciled_at)
    WHERE status = 'completed';

CREATE TABLE embedding_attempts (
    attempt_id uuid PRIMARY KEY,
    recording_id text NOT NULL,
    run_id text NOT NULL,
    lane text NOT NULL CHECK (lane IN ('standard', 'small_batch')),
    model text,
    outcome text NOT NULL CHECK (outcome IN ('published', 'failed', 'source_gone')),
    error_kind text,
    error text,
    chunks integer NOT NULL DEFAULT 0 CHECK (chunks >= 0),
    embedded integer NOT NULL DEFAULT 0 CHECK (embedded >= 0),
    reused integer NOT NULL DEFAULT 0 CHECK (reused >= 0),
    requests integer NOT NULL DEFAULT 0 CHECK (requests >= 0),
    tokens bigint NOT NULL DEFAULT 0 CHECK (tokens >= 0),
    cost_usd numeric, -- NULL: the model's price is unknown
    seconds double precision NOT NULL CHECK (seconds >= 0),
    smallest_insert_batch integer,
    finished_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT a_failed_attempt_has_a_reason CHECK (
        (outcome = 'failed') = (error_kind IS NOT NULL) AND (error_kind IS NULL) = (error IS NULL))
);

CREATE INDEX embedding_attempts_finished_at ON embedding_attempts (finished_at);
CREATE INDEX embedding_attempts_recording_id ON embedding_attempts (recording_id, finished_at);
CREATE INDEX embedding_attempts_run_id ON embedding_attempts (run_id);
"""

# No foreign key from vectors to models: every insert would lock the one live row.
VECTORS = """
CREATE TABLE embedding_models (
    model text PRIMARY KEY, -- provider/name/dimensions
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 16000),
    is_live boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX embedding_models_one_is_live ON embedding_models (is_live) WHERE is_live;

CREATE TABLE chunk_embeddings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- only grows: index parts are ranges of it
    model text NOT NULL,
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    embedding vector NOT NULL,
    token_count integer NOT NULL CHECK (token_count >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (model, content_hash)
);

CREATE TABLE vector_index_parts (
    index_name text PRIMARY KEY,
    model text NOT NULL REFERENCES embedding_models,
    from_id bigint NOT NULL,
    to_id bigint NOT NULL, -- exclusive
    state text NOT NULL CHECK (state IN ('building', 'sealed', 'dropping')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (from_id < to_id)
);

CREATE TABLE transcript_chunks (
    recording_id text NOT NULL,
    chunk_index integer NOT NULL CHECK (chunk_index >= 0),
    chunk_text text NOT NULL CHECK (chunk_text <> ''),
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    token_count integer NOT NULL CHECK (token_count >= 0),
    speakers text[] NOT NULL,
    start_seconds double precision,
    end_seconds double precision,
    first_position integer NOT NULL,
    last_position integer NOT NULL,
    call_title text,
    call_recorded_at timestamptz,
    user_id text,
    fts tsvector GENERATED ALWAYS AS (to_tsvector('english', chunk_text)) STORED,
    PRIMARY KEY (recording_id, chunk_index),
    CHECK (first_position <= last_position)
);
CREATE INDEX transcript_chunks_content_hash ON transcript_chunks (content_hash);
"""

# Changes make their recording due in the transaction that makes them. A recording that is being
# processed keeps its claim: the row is locked and touched, so that its publication, which locks
# the same row, sees this transaction's change and leaves the recording due again.
TRACKING = """
CREATE FUNCTION enqueue_recordings(ids text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO embedding_queue AS queued (recording_id)
    SELECT DISTINCT id FROM unnest(ids) AS id WHERE id IS NOT NULL ORDER BY id
    ON CONFLICT (recording_id) DO UPDATE SET
        status = CASE queued.status WHEN 'processing' THEN 'processing' ELSE 'pending' END,
        attempts = 0,
        recoveries = 0,
        next_attempt_at = now(),
        enqueued_at = now()
$$;

CREATE FUNCTION track_calls() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(recording_id::text) INTO ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(recording_id::text) INTO ids FROM old_rows;
    ELSE
        SELECT array_agg(id) INTO ids FROM (
            (SELECT recording_id::text AS id, title, to_jsonb(o) -> 'recorded_at',
                    to_jsonb(o) -> 'created_at', to_jsonb(o) -> 'user_id' FROM old_rows o
             EXCEPT
             SELECT recording_id::text, title, to_jsonb(n) -> 'recorded_at',
                    to_jsonb(n) -> 'created_at', to_jsonb(n) -> 'user_id' FROM new_rows n)
            UNION ALL
            (SELECT recording_id::text, title, to_jsonb(n) -> 'recorded_at',
                    to_jsonb(n) -> 'created_at', to_jsonb(n) -> 'user_id' FROM new_rows n
             EXCEPT
             SELECT recording_id::text, title, to_jsonb(o) -> 'recorded_at',
                    to_jsonb(o) -> 'created_at', to_jsonb(o) -> 'user_id' FROM old_rows o)
        ) AS changed;
    END IF;
    PERFORM enqueue_recordings(ids);
    RETURN NULL;
END $$;

CREATE FUNCTION track_transcripts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT recording_id::text) INTO ids FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT recording_id::text) INTO ids FROM old_rows;
    ELSE
        SELECT array_agg(DISTINCT id) INTO ids FROM (
            (SELECT recording_id::text AS id, position, speaker_name, start_seconds, end_seconds,
                    text, edited_text, is_deleted FROM old_rows
             EXCEPT
             SELECT recording_id::text, position, speaker_name, start_seconds, end_seconds,
                    text, edited_text, is_deleted FROM new_rows)
            UNION ALL
            (SELECT recording_id::text, position, speaker_name, start_seconds, end_seconds,
                    text, edited_text, is_deleted FROM new_rows
             EXCEPT
             SELECT recording_id::text, position, speaker_name, start_seconds, end_seconds,
                    text, edited_text, is_deleted FROM old_rows)
        ) AS changed;
    END IF;
    PERFORM enqueue_recordings(ids);
    RETURN NULL;
END $$;
"""

# SECURITY DEFINER: whoever may write a transcript may queue it. Pinned to this schema, so that
# nobody's search path can put another embedding_queue in its place.
PIN_SEARCH_PATH = """
DO $$
DECLARE tracker text;
BEGIN
    FOREACH tracker IN ARRAY ARRAY['enqueue_recordings(text[])', 'track_calls()',
                                   'track_transcripts()'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', tracker,
                       current_schema());
    END LOOP;
END $$;
"""

# Only an owner may put triggers on a table; elsewhere the reconciling query finds the changes.
TRIGGERS = """
DO $$
DECLARE
    source record;
    event record;
BEGIN
    FOR source IN
        SELECT c.oid::regclass AS name, t.tracker
        FROM (VALUES ('fathom_calls', 'track_calls'),
                     ('fathom_transcripts', 'track_transcripts')) AS t (relation, tracker)
        JOIN pg_class AS c ON c.oid = to_regclass(t.relation)
        WHERE c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        FOR event IN
            SELECT * FROM (VALUES
                ('insert', 'NEW TABLE AS new_rows'),
                ('update', 'OLD TABLE AS old_rows NEW TABLE AS new_rows'),
                ('delete', 'OLD TABLE AS old_rows')) AS e (verb, tables)
        LOOP
            EXECUTE format(
                'CREATE TRIGGER embedding_assets_%s AFTER %s ON %s REFERENCING %s'
                ' FOR EACH STATEMENT EXECUTE FUNCTION %I()',
                event.verb, event.verb, source.name, event.tables, source.tracker);
        END LOOP;
    END LOOP;
END $$;
"""


def _require_columns(table: str) -> None:
    """A table that somebody else made must have what is read of it, before triggers read it."""
    there = op.get_bind().scalars(
        sa.text(
            "SELECT attname FROM pg_attribute"
            " WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
        ),
        {"name": table},
    )
    missing = sorted(set(COLUMNS[table]) - set(there))
    if missing:
        raise ConfigurationError(
            f"the table {table} has no column {', '.join(missing)}: add what is missing, or let"
            " search_path lead to the recorder's tables"
        )


def upgrade() -> None:
    """Creates the tables, and change tracking on source tables that this role owns."""
    for table, statement in SOURCES.items():
        if op.get_bind().scalar(sa.text(f"SELECT to_regclass('{table}') IS NULL")):
            op.execute(statement)
        _require_columns(table)
    for statements in (QUEUE, VECTORS, TRACKING, PIN_SEARCH_PATH, TRIGGERS):
        op.execute(statements)


def downgrade() -> None:
    """Takes away what this project made; the source tables stay."""
    for table in ("fathom_calls", "fathom_transcripts"):
        for verb in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER IF EXISTS embedding_assets_{verb} ON {table}")
    op.execute("DROP FUNCTION track_calls, track_transcripts, enqueue_recordings")
    op.execute(
        "DROP TABLE transcript_chunks, vector_index_parts, chunk_embeddings, embedding_models,"
        " embedding_attempts, embedding_queue"
    )
