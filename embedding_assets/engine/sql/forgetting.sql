-- What is published and written down of a call is deleted.

-- name: hold_queue_row(recording_id)
-- Nobody publishes the call until the end of the transaction.
SELECT recording_id FROM embedding_queue WHERE recording_id = :recording_id FOR UPDATE;

-- name: hashes_of(recording_id)
-- The texts of its chunks, and those that wait for a batch, by their hashes.
SELECT content_hash FROM transcript_chunks WHERE recording_id = :recording_id
UNION SELECT content_hash FROM embedding_batch_inputs WHERE recording_id = :recording_id;

-- name: batch_files_of(recording_id)
-- The provider's names of the files its texts were sent in.
SELECT DISTINCT batches.input_file FROM embedding_batch_inputs AS inputs
JOIN embedding_batches AS batches USING (batch_id)
WHERE inputs.recording_id = :recording_id AND batches.input_file IS NOT NULL;

-- name: words_of(recording_id)
-- The words of its chunks, in each language.
SELECT DISTINCT language, unnest(tsvector_to_array(words)) AS lexeme FROM chunk_words
WHERE language IN (SELECT language FROM search_languages) AND recording_id = :recording_id;

-- name: forget_lexemes(languages, lexemes)!
-- Takes those of these words out of the counts that no chunk has any more.
DELETE FROM search_lexemes AS known
USING unnest(:languages::text[], :lexemes::text[]) AS said (language, lexeme)
WHERE known.language = said.language AND known.lexeme = said.lexeme
  AND NOT EXISTS (SELECT FROM chunk_words AS words
                  WHERE words.language = said.language
                    AND words.words @@ lexeme_query(said.lexeme));

-- name: forget_published(recording_id)^
-- Deletes all that readers see of it, and its place in the queue.
WITH words AS (
    DELETE FROM chunk_words
    WHERE language IN (SELECT language FROM search_languages) AND recording_id = :recording_id
    RETURNING 1
), recordings AS (
    DELETE FROM published_recordings WHERE recording_id = :recording_id RETURNING 1
), inputs AS (
    DELETE FROM embedding_batch_inputs WHERE recording_id = :recording_id RETURNING 1
), findings AS (
    DELETE FROM integrity_findings WHERE recording_id = :recording_id RETURNING 1
), queued AS (
    DELETE FROM embedding_queue WHERE recording_id = :recording_id RETURNING 1
), chunks AS (
    DELETE FROM transcript_chunks WHERE recording_id = :recording_id RETURNING 1
)
SELECT (SELECT count(*) FROM words) AS chunk_words,
       (SELECT count(*) FROM recordings) AS published_recordings,
       (SELECT count(*) FROM inputs) AS embedding_batch_inputs,
       (SELECT count(*) FROM findings) AS integrity_findings,
       (SELECT count(*) FROM queued) AS embedding_queue,
       (SELECT count(*) FROM chunks) AS transcript_chunks;

-- name: forget_attempts(recording_id, instead)!
-- Leaves what its attempts cost, and takes out which call that was and what they said of it.
UPDATE embedding_attempts
SET recording_id = :instead, error = CASE WHEN error IS NOT NULL THEN :instead END
WHERE recording_id = :recording_id;

-- name: forget_vectors(hashes)!
-- Deletes the vectors of texts that no chunk has any more, of every model.
DELETE FROM chunk_embeddings AS stored
WHERE stored.content_hash = ANY (:hashes::bytea[])
  AND NOT EXISTS (SELECT FROM transcript_chunks AS chunks
                  WHERE chunks.content_hash = stored.content_hash);

-- name: forget_inputs(recording_id)!
-- Takes its texts out of batches that wait.
DELETE FROM embedding_batch_inputs WHERE recording_id = :recording_id;

-- name: due_again(recording_id)!
-- A call of which nothing is published any more is embedded anew.
UPDATE embedding_queue SET status = 'pending', attempts = 0, recoveries = 0, claimed_by = NULL,
    lease_expires_at = NULL, next_attempt_at = now(), enqueued_at = now(), error_kind = NULL,
    last_error = NULL
WHERE recording_id = :recording_id;
