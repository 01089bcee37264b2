-- name: schema_revision()^
-- The revision the database is migrated to, and the oldest whose code may still work on it.
SELECT version_num, oldest_code FROM embedding_assets_version;

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
