-- Who sees which call.

-- name: set_reader(reader)$
-- Names the reader, until the end of the transaction: a pooled session must not keep it.
SELECT set_config('embedding_assets.reader', :reader, true);

-- name: access_is_on()$
-- Whether readers see their calls only.
SELECT access_is_on();

-- name: sees_all_calls()$
-- Whether this transaction's reader may see every call.
SELECT sees_all_calls();

-- name: limit_statements(milliseconds)$
-- How long each statement of this transaction may take from here on.
SELECT set_config('statement_timeout', :milliseconds, true);

-- name: access_settings()^
-- How readers are derived, and whether search holds to it.
SELECT is_on, policy, admits_externals, admins FROM access_settings;

-- name: change_access(policy, admits_externals, admins)!
-- Changes how readers are derived.
UPDATE access_settings SET policy = :policy, admits_externals = :admits_externals,
    admins = :admins::text[];

-- name: derive_all_readers()!
-- Derives the readers of every call anew.
SELECT derive_all_readers();

-- name: switch_access(turn_on)!
-- Switches row-level security on or off. As the tables' owner.
SELECT switch_access(:turn_on);

-- name: trusted_roles()
-- The roles that see everything although access is on: they publish, or no policy applies to them.
SELECT rolname AS role FROM pg_roles
WHERE NOT starts_with(rolname, 'pg_')
  AND (rolsuper OR rolbypassrls OR has_table_privilege(oid, 'transcript_chunks', 'INSERT'))
ORDER BY rolname;

-- name: readers_of(recording_id)
-- Who sees a call, and why.
SELECT reader, why FROM call_readers WHERE recording_id = :recording_id ORDER BY reader;

-- name: is_published(recording_id)$
-- Whether there is such a call to see.
SELECT EXISTS (SELECT FROM published_recordings WHERE recording_id = :recording_id);

-- name: count_readable()$
-- How many published calls the reader of this transaction sees.
SELECT count(*) FROM published_recordings WHERE recording_id IN (SELECT readable_recordings());

-- name: readable_calls(limit)
-- The newest of them, and why each may be seen; an admin sees those for which there is no reason.
SELECT calls.recording_id, calls.title, calls.recorded_at,
       (SELECT string_agg(DISTINCT readers.reader || ' ' || readers.why, '; ')
        FROM call_readers AS readers
        WHERE readers.recording_id = calls.recording_id
          AND readers.reader = ANY (reader_identities())) AS why
FROM published_recordings AS calls
WHERE calls.recording_id IN (SELECT readable_recordings())
ORDER BY calls.recorded_at DESC NULLS LAST, calls.recording_id
LIMIT :limit;
