-- What each role may do with the project's tables. See docs/existing-postgres.md.
--
-- Run it as embedding_owner after every `embedding-assets init` that migrated the schema:
--
--     psql "$OWNER_URL" -v ON_ERROR_STOP=1 -f deploy/grants.sql

GRANT SELECT ON embedding_assets_version TO embedding_worker, embedding_search, embedding_importer;

-- The worker. Postgres asks for UPDATE on a column to lock a row against others (FOR SHARE, FOR KEY
-- SHARE, FOR UPDATE): that is all the worker does with the column created_at.
GRANT SELECT, INSERT, UPDATE, DELETE ON embedding_queue TO embedding_worker;
GRANT SELECT, INSERT ON embedding_attempts TO embedding_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON run_heartbeats TO embedding_worker;
GRANT SELECT, INSERT, UPDATE (created_at) ON embedding_models TO embedding_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (created_at) ON chunk_embeddings TO embedding_worker;
GRANT SELECT, INSERT, DELETE ON transcript_chunks, chunk_words, published_recordings
    TO embedding_worker;
GRANT USAGE ON SEQUENCE chunk_words_id TO embedding_worker;
GRANT SELECT, UPDATE ON search_languages TO embedding_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON search_lexemes TO embedding_worker;
-- It keeps the list of the index's parts; the index itself is the owner's (INDEX_DATABASE_URL).
GRANT SELECT, INSERT, UPDATE, DELETE ON vector_index_parts TO embedding_worker;
GRANT SELECT, INSERT, UPDATE ON embedding_batches, embedding_accounts TO embedding_worker;
GRANT SELECT, INSERT, DELETE ON embedding_batch_inputs TO embedding_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON integrity_findings TO embedding_worker;
GRANT SELECT, UPDATE ON integrity_progress TO embedding_worker;

-- What recorders say beside the words: health compares it with the calls that are here.
GRANT SELECT ON call_details, call_people, people, unmatched_edits, fathom_keys, fathom_sightings,
    webhook_deliveries, call_readers, access_settings, forgettings, forgotten_calls,
    forgotten_people, access_tokens TO embedding_worker;

-- Whoever imports, or synchronises a recorder (SOURCE_DATABASE_URL).
GRANT SELECT, INSERT, UPDATE, DELETE ON call_details, call_people, people, unmatched_edits,
    fathom_keys, fathom_sightings, webhook_deliveries TO embedding_importer;
GRANT SELECT ON forgotten_calls, forgotten_people TO embedding_importer;
GRANT EXECUTE ON FUNCTION may_change_call TO embedding_importer;

-- Whoever runs `embedding-assets search` or `serve`, or calls search_transcript_chunks, which reads
-- words and vectors for its caller, and gives what the caller may see.
GRANT SELECT ON transcript_chunks, published_recordings, search_languages, embedding_models,
    call_readers TO embedding_search;
GRANT EXECUTE ON FUNCTION search_transcript_chunks, newest_recordings, token_of, has_tokens,
    access_is_on TO embedding_search, embedding_worker;
GRANT EXECUTE ON FUNCTION nearest_chunk_vectors, chunk_similarities TO embedding_worker;

-- Where `init` made the recorder's tables.
DO $$
DECLARE source regclass;
BEGIN
    FOR source IN
        SELECT oid FROM pg_class
        WHERE oid IN (to_regclass('fathom_calls'), to_regclass('fathom_transcripts'))
            AND pg_has_role(relowner, 'USAGE')
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO embedding_worker', source);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO embedding_importer', source);
    END LOOP;
END $$;
