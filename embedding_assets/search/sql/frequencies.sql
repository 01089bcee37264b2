-- name: hold_language(language)^
-- Locks a language's counts until the end of the transaction, so that only one process counts.
SELECT language, counted_chunks, counted_until, mean_words, recounted_at FROM search_languages
WHERE language = :language FOR UPDATE SKIP LOCKED;

-- name: languages()
-- The languages that words are kept in.
SELECT language, is_live FROM search_languages ORDER BY language;

-- name: next_slice(language, after, limit)^
-- The next chunks to count, in the order they were published; nulls when there are none.
SELECT max(id) AS until, count(*) AS chunks, coalesce(sum(length(words)), 0) AS words
FROM (SELECT id, words FROM chunk_words WHERE language = :language AND id > :after
      ORDER BY id LIMIT :limit) AS slice;

-- name: add_counts(language, slice)!
-- Adds in how many chunks of a slice each word is; `slice` is the query that gives their words.
INSERT INTO search_lexemes AS known (language, lexeme, chunks)
SELECT :language, word, ndoc FROM ts_stat(:slice) ORDER BY word
ON CONFLICT (language, lexeme) DO UPDATE SET chunks = known.chunks + EXCLUDED.chunks;

-- name: save_counts(language, chunks, words, until)!
-- Says how far was counted.
UPDATE search_languages SET
    mean_words = (mean_words * counted_chunks + :words) / greatest(1, counted_chunks + :chunks),
    counted_chunks = counted_chunks + :chunks,
    counted_until = :until,
    counted_at = now()
WHERE language = :language;

-- name: forget_counts(language)!
-- Starts a language's count again, because changed recordings are counted twice and deleted ones
-- still.
WITH gone AS (DELETE FROM search_lexemes WHERE language = :language)
UPDATE search_languages SET counted_chunks = 0, counted_until = 0, mean_words = 0,
    recounted_at = now()
WHERE language = :language;

-- name: count_chunks(language)$
-- How many chunks have words in a language.
SELECT count(*) FROM chunk_words WHERE language = :language;
