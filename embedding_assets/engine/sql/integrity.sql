-- name: hold_integrity_progress()^
-- Where the last inspection stopped; another inspection waits until this one is done.
SELECT looked_until FROM integrity_progress FOR UPDATE;

-- name: next_recordings(after, recordings, chunks)
-- The recordings to look at next, in order of their id: up to the one that fills the window.
SELECT recording_id, chunk_count
FROM (
    SELECT recording_id, coalesce(chunk_count, 0) AS chunk_count,
           sum(coalesce(chunk_count, 0)) OVER (ORDER BY recording_id) AS running
    FROM (
        SELECT recording_id, chunk_count FROM embedding_queue
        WHERE recording_id > :after
        ORDER BY recording_id LIMIT :recordings
    ) AS next
) AS window_of
WHERE running - chunk_count < :chunks
ORDER BY recording_id;

-- name: orphans(after, until, limit)
-- Recordings of this range of ids that have chunks and no row in the queue.
SELECT DISTINCT chunks.recording_id
FROM transcript_chunks AS chunks
WHERE chunks.recording_id > :after AND (:until::text IS NULL OR chunks.recording_id <= :until)
    AND NOT EXISTS (
        SELECT FROM embedding_queue AS queued WHERE queued.recording_id = chunks.recording_id)
LIMIT :limit;

-- name: found_before()
-- What earlier inspections found, and has to be looked at again.
SELECT recording_id FROM integrity_findings;

-- name: broken_recordings(recording_ids)
-- Which of these recordings are not as they should be, and what is wrong.
WITH live AS MATERIALIZED (
    SELECT model, dimensions FROM embedding_models WHERE is_live
), counted AS (
    SELECT asked.recording_id, queued.status, queued.chunk_count,
           count(chunks.chunk_index) AS chunks,
           coalesce(max(chunks.chunk_index) + 1, 0) AS numbered,
           count(chunks.chunk_index) FILTER (WHERE stored.id IS NULL) AS without_vector,
           count(*) FILTER (WHERE vector_dims(stored.embedding) <> live.dimensions)
               AS of_wrong_length,
           count(*) FILTER (WHERE vector_norm(stored.embedding) = 0) AS of_length_zero
    FROM unnest(:recording_ids::text[]) AS asked (recording_id)
    LEFT JOIN embedding_queue AS queued USING (recording_id)
    LEFT JOIN transcript_chunks AS chunks USING (recording_id)
    LEFT JOIN live ON true
    LEFT JOIN chunk_embeddings AS stored
        ON stored.model = live.model AND stored.content_hash = chunks.content_hash
    GROUP BY asked.recording_id, queued.status, queued.chunk_count
), told AS (
    SELECT recording_id, CASE
        WHEN status IS NULL AND chunks > 0
            THEN concat(chunks, ' chunks of a recording that is not in the queue')
        WHEN chunks <> coalesce(chunk_count, 0)
            THEN concat(chunks, ' chunks where ', coalesce(chunk_count, 0), ' were published')
        WHEN numbered <> chunks
            THEN concat('a gap in chunk_index: ', chunks, ' chunks, the last one numbered ',
                        numbered - 1)
        WHEN without_vector > 0
            THEN concat(without_vector, ' of ', chunks,
                        ' chunks without a vector of the live model')
        WHEN of_wrong_length > 0
            THEN concat(of_wrong_length, ' vectors of the wrong dimension')
        WHEN of_length_zero > 0 THEN concat(of_length_zero, ' vectors of length zero')
        END AS problem
    FROM counted
)
SELECT recording_id, problem FROM told WHERE problem IS NOT NULL;

-- name: published_empty(recording_ids)
-- Those of these recordings that were published without a chunk.
SELECT recording_id FROM embedding_queue
WHERE recording_id = ANY(:recording_ids::text[]) AND status = 'completed' AND chunk_count = 0;

-- name: keep_findings(recording_ids, problems)!
-- Remembers what is wrong, and since when.
INSERT INTO integrity_findings AS kept (recording_id, problem)
SELECT * FROM unnest(:recording_ids::text[], :problems::text[])
ON CONFLICT (recording_id) DO UPDATE SET problem = excluded.problem
WHERE kept.problem <> excluded.problem;

-- name: forget_findings(recording_ids)!
-- These were looked at, and are as they should be.
DELETE FROM integrity_findings WHERE recording_id = ANY(:recording_ids::text[]);

-- name: save_integrity_progress(looked_until, recordings, chunks)!
-- Says what was looked at; without a last recording, the round is over.
UPDATE integrity_progress
SET inspected_at = now(), recordings = :recordings, chunks = :chunks,
    round_started_at = CASE WHEN looked_until IS NULL THEN now() ELSE round_started_at END,
    last_round_ended_at = CASE WHEN :looked_until::text IS NULL THEN now()
                               ELSE last_round_ended_at END,
    looked_until = :looked_until;

-- name: oldest_findings(limit)
-- What is wrong for longest.
SELECT recording_id, problem, found_at FROM integrity_findings
ORDER BY found_at, recording_id
LIMIT :limit;
