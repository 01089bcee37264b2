-- name: add_model(model, dimensions)!
-- Makes a model known, and live if none is yet.
INSERT INTO embedding_models (model, dimensions, is_live)
SELECT :model, :dimensions, NOT EXISTS (SELECT FROM embedding_models WHERE is_live)
ON CONFLICT DO NOTHING;

-- name: live_model()^
-- The model that search reads.
SELECT model, dimensions FROM embedding_models WHERE is_live;

-- name: model_dimensions(model)$
-- The length of a model's vectors; no row for one that is not known.
SELECT dimensions FROM embedding_models WHERE model = :model;

-- name: hold_live_model()^
-- The live model, which nobody switches before this transaction ends.
SELECT model FROM embedding_models WHERE is_live FOR SHARE;

-- name: retire_live_model()!
-- First half of the switch; readers see neither half, only the transaction's whole.
UPDATE embedding_models SET is_live = false WHERE is_live;

-- name: make_model_live(model)!
-- Second half of the switch.
UPDATE embedding_models SET is_live = true WHERE model = :model;

-- name: stored_hashes(model, hashes)
-- Which of these texts have a vector already.
SELECT content_hash FROM chunk_embeddings
WHERE model = :model AND content_hash = ANY(:hashes::bytea[]);

-- name: hold_vectors(model, hashes)
-- Which of these texts have a vector; locks them, so that no sweep deletes them before the commit.
SELECT content_hash FROM chunk_embeddings
WHERE model = :model AND content_hash = ANY(:hashes::bytea[])
FOR KEY SHARE;

-- name: store_vectors(model, hashes, embeddings, token_counts)!
-- Adds vectors; where another run has stored one meanwhile, that one is kept.
INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)
SELECT :model, batch.content_hash, batch.embedding, batch.token_count
FROM unnest(:hashes::bytea[], :embeddings::vector[], :token_counts::integer[])
    AS batch (content_hash, embedding, token_count)
ON CONFLICT (model, content_hash) DO NOTHING;

-- name: last_vector_id()$
-- The highest id, at which a sweep ends.
SELECT coalesce(max(id), 0) FROM chunk_embeddings;

-- name: lock_unreferenced(after, until, grace)
-- Locks the vectors in a range of ids that no chunk refers to; skips those that are being published.
SELECT stored.id FROM chunk_embeddings AS stored
WHERE stored.id > :after AND stored.id <= :until AND stored.created_at < now() - :grace
    AND NOT EXISTS (
        SELECT FROM transcript_chunks AS chunks
        WHERE chunks.content_hash = stored.content_hash)
FOR UPDATE OF stored SKIP LOCKED;

-- name: delete_unreferenced(ids)!
-- Checks again under the lock, because a publication may have committed in between.
DELETE FROM chunk_embeddings AS stored
WHERE stored.id = ANY(:ids::bigint[])
    AND NOT EXISTS (
        SELECT FROM transcript_chunks AS chunks
        WHERE chunks.content_hash = stored.content_hash);
