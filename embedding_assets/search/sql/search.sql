-- name: nearest_in_recording(query, model, recording_id, limit)
-- The chunks of one recording that are nearest to a vector of this model, exactly.
SELECT chunks.recording_id, chunks.chunk_index, chunks.call_title, chunks.call_recorded_at,
       chunks.speakers, chunks.start_seconds, chunks.end_seconds, chunks.chunk_text,
       1 - (stored.embedding <=> :query::vector) AS similarity
FROM chunk_embeddings AS stored
JOIN transcript_chunks AS chunks ON chunks.content_hash = stored.content_hash
WHERE stored.model = :model AND chunks.recording_id = :recording_id
ORDER BY stored.embedding <=> :query::vector, chunks.recording_id, chunks.chunk_index
LIMIT :limit;

-- name: set_search_effort(effort)^
-- How much of a part's graph is looked at, for this transaction; more, where what is found there
-- is not published.
SELECT set_config('hnsw.ef_search', :effort::text, true) AS effort,
       set_config('hnsw.iterative_scan', 'relaxed_order', true) AS goes_on;

-- The statement of a whole search is put together of the next three, since it has a branch for
-- each part of the index, and a predicate must name its range for the planner to know the index.

-- name: nearest_in_part()
-- Published vectors of one part whose signs differ least from those of the question.
(SELECT stored.content_hash, stored.embedding,
        stored.signs::bit({dimensions}) <~> binary_quantize({query}::vector)::bit({dimensions})
            AS differing
 FROM chunk_embeddings AS stored
 WHERE stored.model = {model} AND stored.id >= {from_id} AND stored.id < {to_id}
     AND EXISTS (SELECT FROM transcript_chunks AS chunks
                 WHERE chunks.content_hash = stored.content_hash OFFSET 0)
 ORDER BY differing
 LIMIT {candidates});

-- name: nearest_outside()
-- The same of a range without an index: the signs are read one by one, the chunks of few.
(SELECT stored.content_hash, stored.embedding, stored.differing
 FROM (
     SELECT content_hash, embedding, signs <~> binary_quantize({query}::vector) AS differing
     FROM chunk_embeddings
     -- As rows: by the index on both, and not through what other models have in this range.
     WHERE (model, id) >= ({model}, {from_id}) AND (model, id) < ({model}, {to_id})
     ORDER BY differing OFFSET 0
 ) AS stored
 WHERE EXISTS (SELECT FROM transcript_chunks AS chunks
               WHERE chunks.content_hash = stored.content_hash OFFSET 0)
 ORDER BY stored.differing
 LIMIT {candidates});

-- name: nearest_of_all()
-- Of what the branches give, the nearest by the whole vectors.
SELECT chunks.recording_id, chunks.chunk_index, chunks.call_title, chunks.call_recorded_at,
       chunks.speakers, chunks.start_seconds, chunks.end_seconds, chunks.chunk_text,
       1 - (near.embedding <=> {query}::vector) AS similarity
FROM (
    SELECT content_hash, embedding FROM ({branches}) AS found
    ORDER BY differing
    LIMIT {candidates}
) AS near
-- OFFSET 0: looked up one by one, also before the table was ever analyzed.
CROSS JOIN LATERAL (
    SELECT * FROM transcript_chunks AS published
    WHERE published.content_hash = near.content_hash OFFSET 0
) AS chunks
ORDER BY near.embedding <=> {query}::vector, chunks.recording_id, chunks.chunk_index
LIMIT {limit};
