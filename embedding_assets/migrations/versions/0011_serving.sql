-- Who may ask over the network, and calls page by page.

-- Each row is a token that was given to a person or a program: it sees what its reader may see.
CREATE TABLE access_tokens (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32), -- SHA-256
    reader text NOT NULL CHECK (reader = lower(reader) AND btrim(reader) <> ''),
    may_import boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz -- worth nothing from then on
);
-- Without a policy: nobody but the owner sees a row, whatever a schema grants by default.
ALTER TABLE access_tokens ENABLE ROW LEVEL SECURITY;

-- The token with this hash, if there is one. Whoever serves may ask for one, and list none.
CREATE FUNCTION token_of(hash bytea, OUT name text, OUT reader text, OUT may_import boolean)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT name, reader, may_import FROM access_tokens
    WHERE token_hash = hash AND revoked_at IS NULL
$$;

-- Whether any token was ever given out: from the first on, nobody is served without one.
CREATE FUNCTION has_tokens() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT EXISTS (SELECT FROM access_tokens)
$$;

-- Whether readers see their calls only.
CREATE FUNCTION access_is_on() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT is_on FROM access_settings
$$;

-- Whether a reader may bring a call that is here already: who is no reader of it must not become one
-- by that.
CREATE FUNCTION may_change_call(id text, reader_name text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT EXISTS (SELECT FROM call_readers
                   WHERE recording_id = id AND reader = ANY (names || '*'::text))
        OR EXISTS (SELECT FROM access_settings WHERE admins && names)
    FROM all_addresses(ARRAY[lower(reader_name)]) AS names
$$;

-- The newest calls first; those without a date last.
CREATE INDEX published_recordings_newest
    ON published_recordings (coalesce(recorded_at, '-infinity'), recording_id);

-- The newest published calls that the filters and the reader leave, from the one before this date
-- and id on. See docs/search.md for the keys of `filters`.
CREATE FUNCTION newest_recordings(
    filters jsonb, before_at timestamptz, before_id text, most integer)
RETURNS SETOF published_recordings LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    wanted text[] := (wanted_recordings(filters)).ids;
    -- Of chunks elsewhere; a list of calls leaves out those in which they speak.
    barred text[] := search_lower_texts(filters #> '{exclude,speakers}');
BEGIN
    -- Two statements, as one plan does not suit both.
    IF wanted IS NULL THEN
        RETURN QUERY SELECT * FROM published_recordings AS calls
        WHERE before_id IS NULL
            OR (coalesce(calls.recorded_at, '-infinity'), calls.recording_id)
               < (coalesce(before_at, '-infinity'), before_id)
        ORDER BY coalesce(calls.recorded_at, '-infinity') DESC, calls.recording_id DESC LIMIT most;
    ELSE
        RETURN QUERY SELECT * FROM published_recordings AS calls
        WHERE calls.recording_id = ANY (wanted)
            AND (calls.speaker_names && barred) IS NOT TRUE AND (
            before_id IS NULL OR (coalesce(calls.recorded_at, '-infinity'), calls.recording_id)
                                 < (coalesce(before_at, '-infinity'), before_id))
        ORDER BY coalesce(calls.recorded_at, '-infinity') DESC, calls.recording_id DESC LIMIT most;
    END IF;
END $$;

-- Pinned to this schema, as the other functions that run with their owner's rights; only those who
-- may read the chunks may call them.
DO $$
DECLARE
    path text;
    function regprocedure;
    caller regrole;
    visitor regrole;
BEGIN
    SELECT format('%I, %s, pg_temp', current_schema(), extnamespace::regnamespace) INTO path
    FROM pg_extension WHERE extname = 'vector';
    FOR function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace
          AND proname IN ('token_of', 'has_tokens', 'access_is_on', 'newest_recordings',
                          'may_change_call')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s', function, path);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        FOR caller IN
            SELECT DISTINCT rights.grantee
            FROM pg_class AS chunks, aclexplode(chunks.relacl) AS rights
            WHERE chunks.oid = 'transcript_chunks'::regclass AND rights.privilege_type = 'SELECT'
              AND rights.grantee <> chunks.relowner AND rights.grantee <> 0
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, caller);
        END LOOP;
    END LOOP;
    -- Supabase lets its visitors use whatever is made in public.
    FOR visitor IN SELECT oid FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON access_tokens, access_settings FROM %s', visitor);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION token_of, has_tokens, access_is_on,'
                       ' may_change_call FROM %s', visitor);
    END LOOP;
END $$;
