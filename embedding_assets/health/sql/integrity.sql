-- name: hold_integrity_progress()^
-- Where the last inspection stopped; no row while another inspection is going on.
SELECT looked_until FROM integrity_progress FOR UPDATE SKIP LOCKED;

-- name: next_window(after, recordings, chunks)
-- The recordings to look at next, queued or not, as far as both limits reach; the last one whole.
WITH stored AS (
    SELECT recording_id FROM transcript_chunks
    WHERE recording_id > :after
    ORDER BY recording_id LIMIT :chunks
), queued AS (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id > :after
    ORDER BY recording_id LIMIT :recordings
), reach AS (
    -- A list that was cut off by the limit may continue after its last id, so the window ends at the
    -- smallest of these ids; NULL: neither list was cut off.
    SELECT least((SELECT max(recording_id) FROM stored HAVING count(*) = :chunks),
                 (SELECT max(recording_id) FROM queued HAVING count(*) = :recordings)) AS until
)
SELECT seen.recording_id, reach.until
FROM (SELECT recording_id FROM stored UNION SELECT recording_id FROM queued) AS seen
JOIN reach ON reach.until IS NULL OR seen.recording_id <= reach.until
ORDER BY seen.recording_id;

-- name: found_before(recordings, chunks)
-- The oldest findings, to be inspected again: at least one, otherwise within both limits.
SELECT recording_id
FROM (
    SELECT found.recording_id,
           sum(counted.chunks) OVER (ORDER BY found.found_at, found.recording_id)
               - counted.chunks AS before
    FROM (
        SELECT recording_id, found_at FROM integrity_findings
        ORDER BY found_at, recording_id LIMIT :recordings
    ) AS found
    CROSS JOIN LATERAL (
        SELECT count(*) AS chunks FROM transcript_chunks AS chunks
        WHERE chunks.recording_id = found.recording_id
    ) AS counted
) AS oldest
WHERE before < :chunks;

-- name: look_at(recording_ids)
-- How many chunks each of these has, and what is wrong with them; read at one moment.
WITH counted AS (
    SELECT asked.recording_id, queued.status, queued.chunk_count, queued.transcript_version,
           count(chunks.chunk_index) AS chunks,
           coalesce(max(chunks.chunk_index) + 1, 0) AS numbered,
           count(chunks.chunk_index) FILTER (WHERE stored.id IS NULL) AS without_vector,
           count(*) FILTER (
               WHERE vector_dims(stored.embedding)
                     <> (SELECT dimensions FROM embedding_models WHERE is_live)
           ) AS of_wrong_dimension,
           count(*) FILTER (WHERE vector_norm(stored.embedding) = 0) AS of_length_zero
    FROM unnest(:recording_ids::text[]) AS asked (recording_id)
    LEFT JOIN embedding_queue AS queued USING (recording_id)
    LEFT JOIN transcript_chunks AS chunks USING (recording_id)
    LEFT JOIN chunk_embeddings AS stored
        -- A subquery, not a join: before PostgreSQL 18, only so are both columns of the index used.
        ON stored.model = (SELECT model FROM embedding_models WHERE is_live)
            AND stored.content_hash = chunks.content_hash
    GROUP BY asked.recording_id, queued.status, queued.chunk_count, queued.transcript_version
)
SELECT recording_id, chunks, transcript_version,
       status = 'completed' AND chunks = 0 AS is_published_empty,
       CASE
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
           WHEN of_wrong_dimension > 0
               THEN concat(of_wrong_dimension, ' of ', chunks,
                           ' chunks with a vector of the wrong dimension')
           WHEN of_length_zero > 0
               THEN concat(of_length_zero, ' of ', chunks, ' chunks with a vector of length zero')
       END AS problem
FROM counted;

-- name: keep_findings(recording_ids, problems)!
-- Remembers what is wrong, and since when.
INSERT INTO integrity_findings AS kept (recording_id, problem)
SELECT * FROM unnest(:recording_ids::text[], :problems::text[])
ON CONFLICT (recording_id) DO UPDATE SET problem = excluded.problem
WHERE kept.problem <> excluded.problem;

-- name: forget_findings(recording_ids)!
-- Deletes the findings of recordings that are whole again.
DELETE FROM integrity_findings WHERE recording_id = ANY(:recording_ids::text[]);

-- name: save_integrity_progress(looked_until, recordings, chunks)!
-- Saves the position of the inspection; without a last recording, the round is over.
UPDATE integrity_progress
SET inspected_at = now(), recordings = :recordings, chunks = :chunks,
    round_started_at = CASE WHEN looked_until IS NULL THEN now() ELSE round_started_at END,
    last_round_ended_at = CASE WHEN :looked_until::text IS NULL THEN now()
                               ELSE last_round_ended_at END,
    looked_until = :looked_until;

-- name: oldest_findings(limit)
-- The findings, oldest first; all of them if the limit is NULL.
SELECT recording_id, problem, found_at FROM integrity_findings
ORDER BY found_at, recording_id
LIMIT :limit;
