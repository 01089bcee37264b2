-- name: unfinished_recordings()
-- The recordings that the system means to embed without a person, and those not queued yet.
SELECT recording_id FROM embedding_queue WHERE status IN ('pending', 'failed', 'processing')
UNION
SELECT calls.recording_id::text FROM fathom_calls AS calls
WHERE NOT EXISTS (
    SELECT FROM embedding_queue AS queued WHERE queued.recording_id = calls.recording_id::text)
ORDER BY recording_id;

-- name: published_without_vector(model)^
-- What is published, and how much of it a model has no vector of; tokens as this project counts.
SELECT (SELECT count(*) FROM published_recordings) AS recordings,
       (SELECT count(*) FROM transcript_chunks) AS chunks,
       count(*) AS new_chunks, coalesce(sum(token_count), 0)::bigint AS tokens
FROM (
    SELECT DISTINCT ON (chunks.content_hash) chunks.token_count
    FROM transcript_chunks AS chunks
    WHERE NOT EXISTS (
        SELECT FROM chunk_embeddings AS stored
        WHERE stored.model = :model AND stored.content_hash = chunks.content_hash)
    ORDER BY chunks.content_hash
) AS missing;

-- name: model_history(model)^
-- How many tokens a model counts for one of this project's, by its newest vectors; and how many
-- tokens a second its last attempts embedded. NULL where it has embedded nothing.
SELECT (
    SELECT sum(newest.token_count)::double precision / nullif(sum(chunks.token_count), 0)
    FROM (SELECT content_hash, token_count FROM chunk_embeddings
          WHERE model = :model ORDER BY id DESC LIMIT 1000) AS newest
    CROSS JOIN LATERAL (
        SELECT token_count FROM transcript_chunks AS published
        WHERE published.content_hash = newest.content_hash LIMIT 1) AS chunks
) AS counted_share, (
    SELECT sum(tokens) / nullif(extract(epoch FROM
               max(finished_at) - min(finished_at - seconds * interval '1 second')), 0)
    FROM (SELECT tokens, seconds, finished_at FROM embedding_attempts
          WHERE model = :model AND tokens > 0 ORDER BY finished_at DESC LIMIT 200) AS last
)::double precision AS tokens_a_second;
