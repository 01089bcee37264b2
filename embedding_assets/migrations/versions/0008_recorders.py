"""What recorders say beside the words: people, access, files, and how far Fathom was read."""

from alembic import op

revision = "0008"
down_revision = "0007"

DETAILS = """
-- What a recorder says of a call beyond the columns of fathom_calls, which may be somebody else's.
CREATE TABLE call_details (
    recording_id text PRIMARY KEY,
    team text, -- of whoever recorded it
    shared_with text[] NOT NULL DEFAULT '{}', -- as the recorder says it
    language text,
    awaits_transcript boolean NOT NULL DEFAULT false,
    recorded_at timestamptz,
    content_hash bytea CHECK (octet_length(content_hash) = 32), -- of what was said and when
    proposed_id text, -- by the name of the file it came from
    file text,
    CONSTRAINT a_file_proposes_an_id CHECK ((file IS NULL) = (proposed_id IS NULL))
);
CREATE INDEX call_details_content_hash ON call_details (content_hash);
CREATE INDEX call_details_proposed_id ON call_details (proposed_id);
CREATE INDEX call_details_recorded_at ON call_details (recorded_at);
CREATE INDEX call_details_waiting ON call_details (recorded_at) WHERE awaits_transcript;

-- Who was there or invited, as the recorder names them.
CREATE TABLE call_people (
    recording_id text NOT NULL,
    role text NOT NULL CHECK (role IN ('recorded_by', 'invitee', 'speaker')),
    ordinal integer NOT NULL CHECK (ordinal >= 0),
    email text CHECK (email = lower(email)),
    name text,
    is_external boolean, -- NULL: the recorder does not say
    PRIMARY KEY (recording_id, role, ordinal),
    CONSTRAINT somebody_has_a_name CHECK (num_nonnulls(email, name) > 0)
);
CREATE INDEX call_people_email ON call_people (email);

-- Each person once. Names are shown; only addresses join.
CREATE TABLE people (
    email text PRIMARY KEY CHECK (email = lower(email)),
    name text,
    aliases text[] NOT NULL DEFAULT '{}', -- further addresses of the same person
    CONSTRAINT nobody_is_their_own_alias CHECK (NOT email = ANY (aliases))
);
CREATE INDEX people_aliases ON people USING gin (aliases);

-- These addresses, and all others of the same people.
CREATE FUNCTION all_addresses(addresses text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(address) FROM (
        SELECT unnest(addresses) AS address
        UNION
        SELECT unnest(people.email || people.aliases) FROM people
        WHERE people.email = ANY (addresses) OR people.aliases && addresses
    ) AS each
$$;

-- Edits whose words the recorder no longer has, kept for whoever made them.
CREATE TABLE unmatched_edits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recording_id text NOT NULL,
    position integer NOT NULL, -- where it was
    text text NOT NULL,
    edited_text text,
    is_deleted boolean NOT NULL,
    unmatched_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX unmatched_edits_recording ON unmatched_edits (recording_id);
"""

FATHOM = """
-- How far each key's meetings were read.
CREATE TABLE fathom_keys (
    key_name text PRIMARY KEY,
    added_at timestamptz NOT NULL DEFAULT now(),
    walked_until timestamptz, -- all that was created before was read, with transcripts
    walked_at timestamptz, -- when that was written last
    read_at timestamptz, -- the last time that everything new was read
    reread_until timestamptz, -- how far the reading again came; NULL: none is under way
    reread_at timestamptz, -- the end of the last whole one
    listing integer NOT NULL DEFAULT 0 CHECK (listing >= 0), -- the number of the last listing
    listing_began_at timestamptz, -- NULL: none is under way
    listed_until timestamptz, -- how far it came
    listed_at timestamptz, -- when the last complete one began: what it says is as of then
    refused_since timestamptz,
    refusal text,
    CONSTRAINT a_listing_under_way_came_somewhere
        CHECK ((listing_began_at IS NULL) = (listed_until IS NULL)),
    CONSTRAINT a_refusal_says_since_when CHECK ((refused_since IS NULL) = (refusal IS NULL))
);

-- The meetings that each key sees.
CREATE TABLE fathom_sightings (
    key_name text NOT NULL REFERENCES fathom_keys ON DELETE CASCADE,
    meeting_id text NOT NULL, -- Fathom's
    recording_id text, -- of the call here; NULL: the meeting could not be read
    unreadable text, -- why
    created_at timestamptz NOT NULL, -- as Fathom says, or the beginning of the window it was in
    listing integer NOT NULL, -- the number of the listing that saw it last, or would have
    missed smallint NOT NULL DEFAULT 0 CHECK (missed >= 0), -- complete listings since without it
    gone_at timestamptz, -- when that was certain
    PRIMARY KEY (key_name, meeting_id),
    CONSTRAINT what_is_not_here_could_not_be_read
        CHECK ((recording_id IS NULL) = (unreadable IS NOT NULL)),
    CONSTRAINT what_is_gone_was_missed CHECK (gone_at IS NULL OR missed > 0)
);
CREATE INDEX fathom_sightings_recording ON fathom_sightings (recording_id);

CREATE TABLE webhook_deliveries (
    webhook_id text PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_deliveries_received_at ON webhook_deliveries (received_at);
"""

# Only with a table of ours: a key on somebody else's would stand in the way of its owner.
FOLLOW_THE_CALLS = """
DO $$
DECLARE follower text;
BEGIN
    IF EXISTS (
        SELECT FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'recording_id'
        JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'p'
                               AND k.conkey = ARRAY[a.attnum]
        WHERE c.oid = to_regclass('fathom_calls') AND c.relkind = 'r'
          AND a.atttypid = 'text'::regtype AND pg_has_role(c.relowner, 'USAGE'))
    THEN
        LOCK TABLE fathom_calls IN SHARE ROW EXCLUSIVE MODE;
        -- Of calls that were deleted in the meantime.
        DELETE FROM call_people WHERE NOT EXISTS (
            SELECT FROM fathom_calls AS calls WHERE calls.recording_id = call_people.recording_id);
        FOREACH follower IN ARRAY ARRAY['call_details', 'call_people', 'unmatched_edits'] LOOP
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (recording_id)'
                           ' REFERENCES fathom_calls ON DELETE CASCADE', follower);
        END LOOP;
    END IF;
END $$;
"""

# What is known of the calls that are there: who recorded them, and who spoke. A recorder's columns
# may be missing, which to_jsonb reads as NULL.
KNOWN_PEOPLE = """
INSERT INTO call_people (recording_id, role, ordinal, email, name)
SELECT recording_id::text, 'recorded_by', 0, lower(nullif(email, '')), nullif(name, '')
FROM fathom_calls AS calls, LATERAL (
    SELECT to_jsonb(calls) ->> 'recorded_by_email' AS email,
           to_jsonb(calls) ->> 'recorded_by_name' AS name) AS told
WHERE num_nonnulls(nullif(email, ''), nullif(name, '')) > 0;

INSERT INTO call_people (recording_id, role, ordinal, email, name)
SELECT recording_id, 'speaker',
       row_number() OVER (PARTITION BY recording_id ORDER BY email) - 1, email, name
FROM (SELECT recording_id::text AS recording_id,
             lower(to_jsonb(said) ->> 'speaker_email') AS email, min(speaker_name) AS name
      FROM fathom_transcripts AS said
      WHERE to_jsonb(said) ->> 'speaker_email' <> ''
      GROUP BY 1, 2) AS speakers
WHERE EXISTS (SELECT FROM fathom_calls AS calls
              WHERE calls.recording_id::text = speakers.recording_id);

INSERT INTO people (email, name)
SELECT email, min(name) FROM call_people WHERE email IS NOT NULL GROUP BY email;
"""


def upgrade() -> None:
    """Creates the tables, and fills in who is known."""
    # The keys last: from there on nobody writes the calls.
    for statements in (DETAILS, FATHOM, KNOWN_PEOPLE, FOLLOW_THE_CALLS):
        op.execute(statements)


def downgrade() -> None:
    """Drops them."""
    op.execute("DROP FUNCTION all_addresses")
    op.execute(
        "DROP TABLE webhook_deliveries, fathom_sightings, fathom_keys, unmatched_edits, people,"
        " call_people, call_details"
    )
