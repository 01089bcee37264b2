-- name: schema_revision()^
-- The revision the database is migrated to, and the oldest whose code may still work on it.
SELECT version_num, oldest_code FROM embedding_assets_version;

-- name: strongest_lock()^
-- Who locks a table that the work needs against all others, or waits to do so. Whoever holds a row
-- cannot be told from the many that only use the tables. Not the statement: it may quote what was said.
SELECT needed.name AS relation, locks.mode, locks.pid, activity.usename AS role,
       activity.application_name AS program, activity.xact_start AS since
FROM unnest(ARRAY['fathom_calls', 'fathom_transcripts', 'embedding_queue', 'transcript_chunks',
                  'published_recordings', 'chunk_embeddings', 'embedding_models']) AS needed (name)
JOIN pg_locks AS locks ON locks.relation = to_regclass(needed.name)
JOIN pg_stat_activity AS activity USING (pid)
WHERE locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND locks.pid <> pg_backend_pid()
    AND locks.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
ORDER BY locks.mode = 'AccessExclusiveLock' DESC, locks.granted DESC, activity.xact_start
LIMIT 1;

-- name: is_read_only()$
-- Whether new transactions may write nothing: on a standby, or by a setting of the database or role.
SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean;

-- name: server()^
-- What a new connection has to know: this role's statement_timeout, the type `vector` and that of
-- its arrays, and the quoted schema pgvector lives in, if names there do not resolve without it.
SELECT (SELECT setting::float / 1000 FROM pg_settings WHERE name = 'statement_timeout')
           AS statement_seconds,
       vector.oid AS vector,
       vector.typarray AS vectors,
       CASE WHEN to_regtype('vector') IS NULL THEN vector.typnamespace::regnamespace::text END
           AS vector_schema
FROM (SELECT) AS one
LEFT JOIN pg_extension AS extension ON extension.extname = 'vector'
LEFT JOIN pg_type AS vector
    ON vector.typname = 'vector' AND vector.typnamespace = extension.extnamespace;
