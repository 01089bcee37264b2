-- name: enqueue_unqueued()!
-- Queues the recordings that have no row yet: those that were there before change tracking.
INSERT INTO embedding_queue (recording_id)
SELECT calls.recording_id::text
FROM fathom_calls AS calls
WHERE NOT EXISTS (
    SELECT FROM embedding_queue AS queued WHERE queued.recording_id = calls.recording_id::text)
ORDER BY 1
ON CONFLICT (recording_id) DO NOTHING;

-- name: ensure_queued(recording_ids)!
-- Gives these recordings a row if they have none.
INSERT INTO embedding_queue (recording_id)
SELECT id FROM unnest(:recording_ids::text[]) AS id ORDER BY id
ON CONFLICT (recording_id) DO NOTHING;

-- name: enqueue(recording_ids)!
-- Makes these recordings due now, unless a run holds them.
SELECT enqueue_recordings(:recording_ids::text[]);

-- name: claim_due(run_id, lease, limit)
-- Takes the recordings that have waited longest, skipping what others are taking.
UPDATE embedding_queue AS claimed
SET status = 'processing', claimed_by = :run_id, started_at = now(),
    lease_expires_at = now() + :lease
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
    ORDER BY next_attempt_at, recording_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
) AS due
WHERE claimed.recording_id = due.recording_id
RETURNING claimed.recording_id, claimed.attempts;

-- name: claim_these(run_id, lease, recording_ids)
-- Takes these recordings whatever their state, except those that a living run holds.
UPDATE embedding_queue AS claimed
SET status = 'processing', claimed_by = :run_id, started_at = now(),
    lease_expires_at = now() + :lease
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id = ANY(:recording_ids::text[]) AND status <> 'processing'
    ORDER BY recording_id
    FOR UPDATE SKIP LOCKED
) AS free
WHERE claimed.recording_id = free.recording_id
RETURNING claimed.recording_id, claimed.attempts;

-- name: held_by_others(recording_ids, run_id)
-- Of these recordings, those that another run is working on, and which.
SELECT recording_id, claimed_by FROM embedding_queue
WHERE recording_id = ANY(:recording_ids::text[])
    AND status = 'processing' AND claimed_by <> :run_id;

-- name: renew_leases(lease, run_id)!
-- Says that this run is alive.
UPDATE embedding_queue SET lease_expires_at = now() + :lease
WHERE status = 'processing' AND claimed_by = :run_id;

-- name: lock_claim(recording_id, run_id)^
-- Holds the queue row to the end of the transaction; no row when the claim is lost.
SELECT attempts FROM embedding_queue
WHERE recording_id = :recording_id AND status = 'processing' AND claimed_by = :run_id
FOR UPDATE;

-- name: complete(changed, version, chunks, tokens, recording_id)!
-- Ends a claim with success; due again at once if the transcript changed meanwhile.
UPDATE embedding_queue
SET status = CASE WHEN :changed THEN 'pending' ELSE 'completed' END,
    claimed_by = NULL, lease_expires_at = NULL, completed_at = now(), next_attempt_at = now(),
    attempts = 0, recoveries = 0, last_error = NULL, error_kind = NULL,
    transcript_version = :version, chunk_count = :chunks, token_count = :tokens
WHERE recording_id = :recording_id;

-- name: fail(max_attempts, error_kind, error, recording_id)!
-- Ends a claim with failure: due again after 30·3^(n-1) seconds, or a dead letter.
UPDATE embedding_queue
SET status = CASE WHEN attempts + 1 >= :max_attempts THEN 'dead_letter' ELSE 'failed' END,
    claimed_by = NULL, lease_expires_at = NULL, attempts = attempts + 1,
    next_attempt_at = now() + interval '30 seconds' * 3 ^ least(attempts, 8),
    error_kind = :error_kind, last_error = :error
WHERE recording_id = :recording_id;

-- name: release(run_id)!
-- Gives back all that a run still holds; costs no attempt.
UPDATE embedding_queue
SET status = 'pending', claimed_by = NULL, lease_expires_at = NULL, next_attempt_at = now()
WHERE status = 'processing' AND claimed_by = :run_id;

-- name: forget(recording_id)!
-- Ends the claim on a recording whose call was deleted.
DELETE FROM embedding_queue WHERE recording_id = :recording_id;

-- name: expire_leases(error, max_attempts)
-- Takes back what dead runs held: a crash counts as a failed attempt.
WITH dead AS (
    SELECT recording_id, claimed_by, started_at, attempts FROM embedding_queue
    WHERE status = 'processing' AND lease_expires_at < now()
    FOR UPDATE SKIP LOCKED
), attempt AS (
    INSERT INTO embedding_attempts
        (attempt_id, recording_id, run_id, lane, outcome, error_kind, error, seconds)
    SELECT gen_random_uuid(), recording_id, claimed_by, 'standard', 'failed', 'crashed',
           :error, extract(epoch FROM now() - started_at)
    FROM dead
)
UPDATE embedding_queue AS taken
SET status = CASE WHEN dead.attempts + 1 >= :max_attempts THEN 'dead_letter' ELSE 'failed' END,
    claimed_by = NULL, lease_expires_at = NULL, attempts = dead.attempts + 1,
    next_attempt_at = now(), error_kind = 'crashed', last_error = :error
FROM dead
WHERE taken.recording_id = dead.recording_id
RETURNING taken.recording_id, dead.claimed_by;

-- name: record_attempt(attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, chunks, embedded, reused, requests, tokens, cost_usd, seconds, smallest_insert_batch)!
-- Adds to the history that every trend and every cost figure comes from.
INSERT INTO embedding_attempts
    (attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, chunks, embedded,
     reused, requests, tokens, cost_usd, seconds, smallest_insert_batch)
VALUES
    (:attempt_id, :recording_id, :run_id, :lane, :model, :outcome, :error_kind, :error, :chunks,
     :embedded, :reused, :requests, :tokens, :cost_usd, :seconds, :smallest_insert_batch)
ON CONFLICT (attempt_id) DO NOTHING;

-- name: attempt_is_recorded(attempt_id)$
-- Whether this attempt ended already: a commit whose answer was lost.
SELECT EXISTS (SELECT FROM embedding_attempts WHERE attempt_id = :attempt_id);

-- name: queue_counts()
-- Recordings by state, and how many of them are due now.
SELECT status, count(*) AS recordings,
       count(*) FILTER (WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()) AS due,
       coalesce(sum(chunk_count), 0) AS chunks
FROM embedding_queue
GROUP BY status ORDER BY status;

-- name: latest_failures(limit)
-- What failed last, and why.
SELECT recording_id, status, attempts, error_kind, last_error, next_attempt_at
FROM embedding_queue
WHERE status IN ('failed', 'dead_letter')
ORDER BY next_attempt_at DESC
LIMIT :limit;

-- name: run_totals(run_id)^
-- What one run did, from its attempts.
SELECT count(*) FILTER (WHERE outcome <> 'failed') AS processed,
       count(*) FILTER (WHERE outcome = 'failed') AS failed,
       coalesce(sum(chunks) FILTER (WHERE outcome = 'published'), 0)::bigint AS chunks,
       coalesce(sum(embedded), 0)::bigint AS embedded,
       coalesce(sum(tokens), 0)::bigint AS tokens,
       sum(cost_usd) AS cost_usd
FROM embedding_attempts WHERE run_id = :run_id;

-- name: anything_due()$
-- Whether a worker would find something: due, left by a dead run, or never queued.
SELECT EXISTS (
    SELECT FROM embedding_queue
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
) OR EXISTS (
    SELECT FROM embedding_queue WHERE status = 'processing' AND lease_expires_at < now()
) OR EXISTS (
    SELECT FROM fathom_calls AS calls
    WHERE NOT EXISTS (
        SELECT FROM embedding_queue AS queued
        WHERE queued.recording_id = calls.recording_id::text)
);

-- name: held()
-- What living runs are working on.
SELECT recording_id FROM embedding_queue
WHERE status = 'processing' AND lease_expires_at >= now();
