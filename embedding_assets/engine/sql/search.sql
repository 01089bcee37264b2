-- name: nearest_chunks(query, model, recording_id, limit)
-- The published chunks nearest to a vector of this model, exactly.
SELECT chunks.recording_id, chunks.chunk_index, chunks.call_title, chunks.call_recorded_at,
       chunks.speakers, chunks.start_seconds, chunks.end_seconds, chunks.chunk_text,
       1 - (stored.embedding <=> :query::vector) AS similarity
FROM chunk_embeddings AS stored
JOIN transcript_chunks AS chunks ON chunks.content_hash = stored.content_hash
WHERE stored.model = :model
    AND (:recording_id::text IS NULL OR chunks.recording_id = :recording_id)
ORDER BY stored.embedding <=> :query::vector, chunks.recording_id, chunks.chunk_index
LIMIT :limit;
