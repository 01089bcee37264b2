-- name: live_language()$
-- The language that search reads.
SELECT language FROM search_languages WHERE is_live;

-- name: is_language(name)$
-- Whether this server has a text search configuration of that name.
SELECT EXISTS (SELECT FROM pg_ts_config WHERE cfgname = :name);

-- name: add_language(name)^
-- Creates a language's partition; publications write its words from now on.
SELECT add_search_language(:name);

-- name: fill_words(language, limit)^
-- Stores the words of some published chunks that have none in this language yet.
WITH missing AS (
    SELECT recording_id, chunk_index, chunk_text FROM transcript_chunks AS chunks
    WHERE NOT EXISTS (
        SELECT FROM chunk_words AS words
        WHERE words.language = :language AND words.recording_id = chunks.recording_id
            AND words.chunk_index = chunks.chunk_index)
    LIMIT :limit
), stored AS (
    INSERT INTO chunk_words (language, recording_id, chunk_index, words)
    SELECT :language, recording_id, chunk_index, to_tsvector(:language::regconfig, translate(chunk_text, '<>', '  '))
    FROM missing
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM missing) AS found, (SELECT count(*) FROM stored) AS filled;

-- name: next_transaction()$
-- A transaction id that is newer than that of every transaction which has begun.
SELECT pg_current_xact_id()::text;

-- name: have_ended(before)$
-- Whether every transaction with an older id has ended.
SELECT pg_snapshot_xmin(pg_current_snapshot()) >= :before::text::xid8;

-- name: retire_language()!
-- First half of the switch; readers see neither half, only the transaction's whole.
UPDATE search_languages SET is_live = false WHERE is_live;

-- name: make_language_live(language)!
-- Second half of the switch.
UPDATE search_languages SET is_live = true WHERE language = :language;

-- name: drop_language(name)^
-- Forgets a language that search reads no more, and its index with it.
SELECT drop_search_language(:name);
