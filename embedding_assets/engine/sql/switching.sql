-- name: texts_without_vector(after, model, limit)
-- Published texts that a model has no vector of yet, in order of their hash, each with one of the
-- recordings that contain it.
SELECT DISTINCT ON (chunks.content_hash)
    chunks.content_hash, chunks.chunk_text, chunks.recording_id
FROM transcript_chunks AS chunks
WHERE chunks.content_hash > :after
    AND NOT EXISTS (
        SELECT FROM chunk_embeddings AS stored
        WHERE stored.model = :model AND stored.content_hash = chunks.content_hash)
ORDER BY chunks.content_hash
LIMIT :limit;

-- name: lacks_a_vector(model, refused)$
-- Whether a text is published that a model has no vector of, other than those that it refused.
SELECT EXISTS (
    SELECT FROM transcript_chunks AS chunks
    WHERE NOT EXISTS (
            SELECT FROM chunk_embeddings AS stored
            WHERE stored.model = :model AND stored.content_hash = chunks.content_hash)
        AND chunks.content_hash <> ALL(:refused::bytea[]));
