-- Who may see which call: derived from what recorders say, by a policy, in the transaction that
-- changes it.

-- One row: how readers are derived, and whether search holds to it.
CREATE TABLE access_settings (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    is_on boolean NOT NULL DEFAULT false,
    policy text NOT NULL DEFAULT 'invitees'
        CHECK (policy IN ('owner', 'invitees', 'team', 'everyone')),
    admits_externals boolean NOT NULL DEFAULT false,
    admins text[] NOT NULL DEFAULT '{}' -- addresses in lower case, who see everything
);
INSERT INTO access_settings DEFAULT VALUES;

-- A reader is an address or a user's id in lower case, team:NAME, or * for everybody with a name.
CREATE TABLE call_readers (
    recording_id text NOT NULL,
    reader text NOT NULL CHECK (reader <> ''),
    why text NOT NULL,
    PRIMARY KEY (recording_id, reader)
);
CREATE INDEX call_readers_reader ON call_readers (reader) INCLUDE (recording_id);

ALTER TABLE call_details ADD COLUMN imported_by text CHECK (imported_by = lower(imported_by));

-- Whether an address is outside of the company: as the recorder says; where it does not, whoever
-- has not the domain of the one who recorded the call.
CREATE FUNCTION is_external(said boolean, email text, recorded_by text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(said, split_part(email, '@', 2) IS DISTINCT FROM
                          nullif(split_part(recorded_by, '@', 2), ''))
$$;

-- Derives the readers of these calls anew. What is not known lets nobody in.
CREATE FUNCTION derive_call_readers(ids text[]) RETURNS void LANGUAGE sql AS $$
    WITH told AS (
        SELECT details.recording_id, nullif(lower(details.team), '') AS team,
               details.imported_by, ARRAY(SELECT lower(each) FROM unnest(details.shared_with) AS each)
                   AS shared_with
        FROM call_details AS details WHERE details.recording_id = ANY (ids)
    ), named AS (
        -- External is who is so anywhere in the call.
        SELECT people.recording_id, people.role, people.email,
               bool_or(people.is_external) OVER (PARTITION BY people.recording_id, people.email)
                   AS is_external,
               (SELECT min(by.email) FROM call_people AS by
                WHERE by.recording_id = people.recording_id AND by.role = 'recorded_by') AS owner
        FROM call_people AS people
        WHERE people.recording_id = ANY (ids) AND people.email IS NOT NULL
    ), candidates (recording_id, reader, why, place) AS (
        SELECT recording_id, email, 'recorded it', 1 FROM named WHERE role = 'recorded_by'
        UNION ALL
        SELECT calls.recording_id, lower(calls.user_id), 'owns it', 2
        FROM published_recordings AS calls WHERE calls.recording_id = ANY (ids)
        UNION ALL
        SELECT recording_id, imported_by, 'imported it', 3 FROM told
        UNION ALL
        SELECT named.recording_id, named.email,
               CASE named.role WHEN 'invitee' THEN 'was invited' ELSE 'spoke in it' END, 4
        FROM named CROSS JOIN access_settings AS chosen
        WHERE named.role IN ('invitee', 'speaker') AND chosen.policy IN ('invitees', 'team')
          AND (chosen.admits_externals
               OR NOT is_external(named.is_external, named.email, named.owner))
        UNION ALL
        SELECT told.recording_id, shared.name, 'it was shared with them', 5
        FROM told CROSS JOIN access_settings AS chosen CROSS JOIN unnest(told.shared_with) AS shared (name)
        WHERE position('@' IN shared.name) > 0 AND chosen.policy IN ('invitees', 'team')
          AND (chosen.admits_externals OR NOT (
              SELECT is_external(bool_or(named.is_external) FILTER (WHERE named.email = shared.name),
                                 shared.name, min(named.owner))
              FROM named WHERE named.recording_id = told.recording_id))
        UNION ALL
        SELECT told.recording_id, 'team:' || told.team, 'their team recorded it', 6
        FROM told CROSS JOIN access_settings AS chosen
        WHERE chosen.policy = 'team' AND NOT told.shared_with && '{no_teams,none,private}'
        UNION ALL
        SELECT told.recording_id, 'team:' || shared.name, 'it was shared with their team', 7
        FROM told CROSS JOIN access_settings AS chosen CROSS JOIN unnest(told.shared_with) AS shared (name)
        WHERE chosen.policy = 'team' AND position('@' IN shared.name) = 0
          AND shared.name <> ALL ('{no_teams,none,private,single_team,multiple_teams,all_teams,'
                                  'everyone,organization}'::text[])
        UNION ALL
        SELECT told.recording_id, '*', 'it was shared with all teams', 8
        FROM told CROSS JOIN access_settings AS chosen
        WHERE chosen.policy = 'team' AND told.shared_with && '{all_teams,everyone,organization}'
        UNION ALL
        SELECT calls.recording_id, '*', 'everybody sees every call', 9
        FROM published_recordings AS calls CROSS JOIN access_settings AS chosen
        WHERE calls.recording_id = ANY (ids) AND chosen.policy = 'everyone'
    ), wanted AS (
        SELECT DISTINCT ON (recording_id, reader) recording_id, reader, why
        FROM candidates WHERE reader <> '' ORDER BY recording_id, reader, place
    ), gone AS (
        DELETE FROM call_readers AS old
        WHERE old.recording_id = ANY (ids) AND NOT EXISTS (
            SELECT FROM wanted
            WHERE wanted.recording_id = old.recording_id AND wanted.reader = old.reader)
    )
    INSERT INTO call_readers AS known (recording_id, reader, why)
    SELECT recording_id, reader, why FROM wanted ORDER BY recording_id, reader
    ON CONFLICT (recording_id, reader) DO UPDATE SET why = excluded.why
    WHERE known.why <> excluded.why;
$$;

-- What a recorder says changes who sees the call in the same transaction, whoever writes it.
CREATE FUNCTION follow_readers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    ids text[] := ARRAY(SELECT DISTINCT recording_id FROM changed);
BEGIN
    -- First the rows that a publication holds, too: one after the other, and each sees what the
    -- one before it said.
    PERFORM FROM embedding_queue WHERE recording_id = ANY (ids) ORDER BY recording_id FOR UPDATE;
    PERFORM derive_call_readers(ids);
    RETURN NULL;
END $$;

-- A call's owner changes for search in the transaction that changes it in the recorder's table.
CREATE FUNCTION follow_owners() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE published_recordings AS published SET user_id = to_jsonb(changed) ->> 'user_id'
    FROM changed
    WHERE published.recording_id = changed.recording_id::text
      AND published.user_id IS DISTINCT FROM to_jsonb(changed) ->> 'user_id';
    RETURN NULL;
END $$;

-- The role that asks, also within functions that run with their owner's rights.
CREATE FUNCTION calling_role() RETURNS name LANGUAGE sql STABLE AS $$
    SELECT CASE current_setting('role') WHEN 'none' THEN session_user
                ELSE current_setting('role')::name END
$$;

-- By which names the reader is known to whoever serves them: the claims of a JSON web token, as
-- Supabase sets them, or embedding_assets.reader. Empty: nobody.
CREATE FUNCTION current_reader() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    claims jsonb := nullif(current_setting('request.jwt.claims', true), '');
BEGIN
    IF claims IS NOT NULL THEN
        RETURN array_remove(ARRAY[lower(claims ->> 'email'), lower(claims ->> 'sub')], NULL);
    END IF;
    RETURN array_remove(
        ARRAY[nullif(lower(btrim(current_setting('embedding_assets.reader', true))), '')], NULL);
END $$;

-- Whether the caller sees only what its reader may see: every role that does not publish, and a
-- role that does, once it names a reader.
CREATE FUNCTION is_limited() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    -- A role that is not found, such as one renamed meanwhile, is limited.
    SELECT coalesce((
        SELECT chosen.is_on AND (
            cardinality(current_reader()) > 0
            OR NOT (role.rolsuper OR role.rolbypassrls
                    OR has_table_privilege(role.oid, 'transcript_chunks', 'INSERT')))
        FROM access_settings AS chosen, pg_roles AS role
        WHERE role.rolname = calling_role()), true)
$$;

-- All names under which the reader may be let in.
CREATE FUNCTION reader_identities() RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    -- A name that looks like one of ours is nobody's.
    names text[] := ARRAY(SELECT name FROM unnest(current_reader()) AS name
                          WHERE name <> '*' AND name NOT LIKE 'team:%');
BEGIN
    IF cardinality(names) = 0 THEN
        RETURN '{}';
    END IF;
    names := all_addresses(names);
    RETURN names || '*'::text || ARRAY(
        SELECT DISTINCT 'team:' || lower(details.team)
        FROM call_people AS people JOIN call_details AS details USING (recording_id)
        WHERE people.role = 'recorded_by' AND people.email = ANY (names) AND details.team <> '');
END $$;

-- The calls that the reader may see.
CREATE FUNCTION readable_recordings() RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1000 AS $$
DECLARE
    identities text[] := reader_identities();
BEGIN
    IF (SELECT admins && identities FROM access_settings) THEN
        RETURN QUERY SELECT recording_id FROM published_recordings
                     UNION SELECT recording_id FROM call_readers;
    ELSE
        RETURN QUERY SELECT DISTINCT recording_id FROM call_readers
                     WHERE reader = ANY (identities);
    END IF;
END $$;

-- Whether the caller may see every call, so that a search need not be narrowed.
CREATE FUNCTION sees_all_calls() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT NOT is_limited()
        OR chosen.admins && identities
        OR (chosen.policy = 'everyone' AND cardinality(identities) > 0)
    FROM access_settings AS chosen, reader_identities() AS identities
$$;

-- The tables that hold what was said, or tell of it.
CREATE FUNCTION guarded_tables() RETURNS SETOF regclass LANGUAGE sql STABLE AS $$
    SELECT unnest('{transcript_chunks,chunk_words,published_recordings,call_details,call_people,'
                  'people,unmatched_edits,call_readers}'::regclass[])
    UNION ALL
    SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'chunk_words'::regclass
$$;

-- Switches row-level security on or off, also for the tables' owner. Whoever publishes or imports
-- sees everything; everybody else sees the calls of their reader. As the tables' owner.
CREATE FUNCTION switch_access(turn_on boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    guarded regclass;
    trusted text;
    -- Supabase lets its visitors write whatever is made in public: they would count as workers.
    visitors text := (SELECT concat_ws(', ', 'PUBLIC', string_agg(quote_ident(rolname), ', '))
                      FROM pg_roles WHERE rolname IN ('anon', 'authenticated') AND turn_on);
BEGIN
    UPDATE access_settings SET is_on = turn_on;
    FOR guarded IN SELECT * FROM guarded_tables() LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s',
                       guarded, visitors);
    END LOOP;
    FOR guarded IN SELECT * FROM guarded_tables() LOOP
        EXECUTE format('DROP POLICY IF EXISTS embedding_assets_works ON %s', guarded);
        EXECUTE format('DROP POLICY IF EXISTS embedding_assets_readers ON %s', guarded);
        IF NOT turn_on THEN
            EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', guarded);
            EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', guarded);
            CONTINUE;
        END IF;
        -- The owner, and whoever was granted to write.
        SELECT string_agg(DISTINCT role.oid::regrole::text, ', ') INTO trusted
        FROM pg_class AS tables
        LEFT JOIN LATERAL aclexplode(tables.relacl) AS rights ON rights.privilege_type = 'INSERT'
        JOIN pg_roles AS role ON role.oid IN (tables.relowner, rights.grantee)
        WHERE tables.oid IN (guarded, 'transcript_chunks'::regclass);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', guarded);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', guarded);
        EXECUTE format('CREATE POLICY embedding_assets_works ON %s TO %s USING (true)'
                       ' WITH CHECK (true)', guarded, trusted);
        CONTINUE WHEN guarded IN ('people'::regclass, 'call_readers'::regclass);
        EXECUTE format('CREATE POLICY embedding_assets_readers ON %s FOR SELECT'
                       ' USING (recording_id IN (SELECT readable_recordings()))', guarded);
    END LOOP;
END $$;

-- Derives the readers of all calls, after a change of the policy.
CREATE FUNCTION derive_all_readers() RETURNS void LANGUAGE sql AS $$
    SELECT derive_call_readers(ARRAY(
        SELECT recording_id FROM published_recordings
        UNION SELECT recording_id FROM call_details
        UNION SELECT recording_id FROM call_people
        UNION SELECT recording_id FROM call_readers));
$$;

-- The recordings that a search is narrowed to, by its filters and by what its reader may see; NULL:
-- to none in particular. See docs/search.md for the keys of `filters`; one that is not known is an
-- error, as it would otherwise narrow nothing. People are whoever recorded a call, was invited or
-- spoke, by any of their addresses.
CREATE OR REPLACE FUNCTION wanted_recordings(filters jsonb, OUT ids text[], OUT chunks bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    known constant text[] := '{recordings,speakers,people,title,from,until,platforms,owners,exclude}';
    barred constant text[] := '{recordings,speakers,people,title,platforms,owners}';
    wrong text;
    excluded jsonb := coalesce(filters -> 'exclude', '{}');
    sees_all boolean := sees_all_calls();
BEGIN
    SELECT key INTO wrong FROM (
        SELECT key FROM jsonb_object_keys(filters) AS key WHERE key <> ALL(known)
        UNION ALL
        SELECT 'exclude.' || key FROM jsonb_object_keys(excluded) AS key WHERE key <> ALL(barred)
    ) AS unknown LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'there is no filter %', wrong USING ERRCODE = '22023';
    END IF;
    IF filters - 'exclude' = '{}' AND excluded = '{}' AND sees_all THEN
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT coalesce(array_agg(recording_id), ''{}''), coalesce(sum(chunk_count), 0)'
        ' FROM published_recordings WHERE %s',
        concat_ws(' AND ', 'true',
            CASE WHEN NOT sees_all THEN 'recording_id IN (SELECT readable_recordings())' END,
            CASE WHEN filters ? 'recordings' THEN 'recording_id = ANY($1)' END,
            CASE WHEN filters ? 'speakers' THEN 'speaker_names && $2' END,
            CASE WHEN filters ? 'people' THEN
                'recording_id IN (SELECT c.recording_id FROM call_people AS c'
                ' WHERE c.email = ANY($12))' END,
            CASE WHEN filters ? 'title' THEN
                'to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($3)' END,
            CASE WHEN filters ? 'from' THEN 'recorded_at >= $4' END,
            CASE WHEN filters ? 'until' THEN 'recorded_at < $5' END,
            CASE WHEN filters ? 'platforms' THEN 'source_platform = ANY($6)' END,
            CASE WHEN filters ? 'owners' THEN 'user_id = ANY($7)' END,
            CASE WHEN excluded ? 'recordings' THEN 'recording_id <> ALL($8)' END,
            CASE WHEN excluded ? 'people' THEN
                'recording_id NOT IN (SELECT c.recording_id FROM call_people AS c'
                ' WHERE c.email = ANY($13))' END,
            CASE WHEN excluded ? 'title' THEN
                'NOT to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($9)' END,
            CASE WHEN excluded ? 'platforms' THEN
                '(source_platform = ANY($10)) IS NOT TRUE' END,
            CASE WHEN excluded ? 'owners' THEN '(user_id = ANY($11)) IS NOT TRUE' END))
    INTO ids, chunks
    USING search_texts(filters -> 'recordings'), search_lower_texts(filters -> 'speakers'),
          filters ->> 'title',
          (filters ->> 'from')::timestamptz, (filters ->> 'until')::timestamptz,
          search_texts(filters -> 'platforms'), search_texts(filters -> 'owners'),
          search_texts(excluded -> 'recordings'), excluded ->> 'title',
          search_texts(excluded -> 'platforms'), search_texts(excluded -> 'owners'),
          CASE WHEN filters ? 'people' THEN
              all_addresses(search_lower_texts(filters -> 'people')) END,
          CASE WHEN excluded ? 'people' THEN
              all_addresses(search_lower_texts(excluded -> 'people')) END;
END $$;

-- Makes room for a language's words: a partition with its index.
CREATE OR REPLACE FUNCTION add_search_language(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM name::regconfig;
    INSERT INTO search_languages (language, is_live)
    SELECT name, NOT EXISTS (SELECT FROM search_languages WHERE is_live)
    ON CONFLICT DO NOTHING;
    IF to_regclass(format('%I', 'chunk_words_' || name)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF chunk_words FOR VALUES IN (%L)',
                       'chunk_words_' || name, name);
        -- Readers scan what is pending; 1 MB of it is some 400 chunks.
        EXECUTE format('CREATE INDEX %I ON %I USING gin (words) WITH (gin_pending_list_limit = 1024)',
                       'chunk_words_' || name || '_words', 'chunk_words_' || name);
        IF (SELECT is_on FROM access_settings) THEN
            PERFORM switch_access(true);
        END IF;
    END IF;
END $$;
