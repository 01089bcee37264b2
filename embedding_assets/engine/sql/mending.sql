-- name: queue_what_is_there(recording_ids)!
-- Queues those of these recordings that have no queue row, but chunks or a call.
INSERT INTO embedding_queue (recording_id)
SELECT asked.recording_id
FROM (SELECT DISTINCT unnest(:recording_ids::text[]) AS recording_id) AS asked
WHERE EXISTS (SELECT FROM transcript_chunks AS chunks
              WHERE chunks.recording_id = asked.recording_id)
    OR EXISTS (SELECT FROM fathom_calls AS calls
               WHERE calls.recording_id::text = asked.recording_id)
ORDER BY asked.recording_id
ON CONFLICT (recording_id) DO NOTHING;

-- name: waiting_of(recording_ids)
-- Those of these recordings that came or changed and have not been attempted since.
SELECT recording_id FROM embedding_queue
WHERE recording_id = ANY(:recording_ids::text[]) AND status = 'pending'
ORDER BY recording_id;

-- name: drop_bad_vectors(recording_ids)!
-- Deletes these recordings' vectors that no search can use, so that their texts are embedded again.
DELETE FROM chunk_embeddings AS stored
USING embedding_models AS live
WHERE live.is_live AND stored.model = live.model
    AND stored.content_hash IN (
        SELECT content_hash FROM transcript_chunks
        WHERE recording_id = ANY(:recording_ids::text[]))
    AND (vector_dims(stored.embedding) <> live.dimensions OR vector_norm(stored.embedding) = 0);
