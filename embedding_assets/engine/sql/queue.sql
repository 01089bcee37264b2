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

-- name: enqueue_recordings(recording_ids)$
-- Makes these recordings due now, unless a run holds them.
SELECT enqueue_recordings(:recording_ids::text[]);

-- name: deleted_calls()
-- Recordings whose call was deleted and that are not queued for withdrawal yet. Every call has a row
-- in the queue when this is asked: only with more rows than calls are the two compared.
SELECT queued.recording_id
FROM embedding_queue AS queued
WHERE queued.status IN ('completed', 'dead_letter')
    AND (SELECT count(*) FROM embedding_queue) > (SELECT count(*) FROM fathom_calls)
    AND NOT EXISTS (
        SELECT FROM fathom_calls AS calls WHERE calls.recording_id::text = queued.recording_id);

-- name: least_recently_reconciled(limit)
-- The published recordings that were not compared with their transcript for longest.
SELECT recording_id, transcript_version FROM embedding_queue
WHERE status = 'completed'
ORDER BY reconciled_at
LIMIT :limit;

-- name: mark_reconciled(recording_ids)!
-- These were compared now: the others come first the next time. Rows that a recorder's transaction
-- has locked are skipped: waiting for some while holding others would make it wait for us, too.
UPDATE embedding_queue AS compared SET reconciled_at = now()
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id = ANY(:recording_ids::text[])
    ORDER BY recording_id
    FOR NO KEY UPDATE SKIP LOCKED
) AS free
WHERE compared.recording_id = free.recording_id;

-- name: retry(recording_ids, force, max_recoveries)
-- Makes these due now because a person asked for it; attempts and recoveries start again at 0. Rows
-- are locked in order, as recorders' transactions lock them.
UPDATE embedding_queue AS retried
SET status = 'pending', attempts = 0, recoveries = 0, crashes = 0, next_attempt_at = now(),
    enqueued_at = now()
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id = ANY(:recording_ids::text[])
        AND (status = 'failed'
             OR (status = 'dead_letter' AND (:force OR recoveries < :max_recoveries))
             OR (status = 'completed' AND :force))
    ORDER BY recording_id
    FOR NO KEY UPDATE
) AS asked
WHERE retried.recording_id = asked.recording_id
RETURNING retried.recording_id;

-- name: dead_letters()
-- The dead letters, those that have waited longest first.
SELECT recording_id, recoveries FROM embedding_queue
WHERE status = 'dead_letter'
ORDER BY next_attempt_at, recording_id;

-- name: left_undone(run_id)
-- What this run claimed and did not finish: still claimed, or failed, or taken back after its death,
-- and not processed by another run since.
SELECT queued.recording_id
FROM embedding_queue AS queued
WHERE (queued.status = 'processing' AND queued.claimed_by = :run_id)
    OR ((queued.status = 'failed' OR queued.status = 'pending' AND queued.crashes > 0)
        AND :run_id = (
            SELECT attempts.run_id FROM embedding_attempts AS attempts
            WHERE attempts.recording_id = queued.recording_id
            ORDER BY attempts.finished_at DESC LIMIT 1))
ORDER BY queued.recording_id;

-- name: still_undone(recording_ids, run_id)
-- Of these recordings, those that are neither published, nor given up, nor in another run's hands.
SELECT recording_id FROM embedding_queue
WHERE recording_id = ANY(:recording_ids::text[])
    AND (status IN ('pending', 'failed') OR (status = 'processing' AND claimed_by = :run_id))
ORDER BY recording_id;

-- name: fewest_crashes_due()$
-- The fewest crashes that a recording has of those that are due; NULL when none is due.
SELECT min(crashes) FROM embedding_queue
WHERE status IN ('pending', 'failed') AND next_attempt_at <= now();

-- name: claim_due(run_id, lease, crashes, limit)
-- Claims recordings with this number of crashes, those due longest first; skips locked rows. In all
-- three claims MATERIALIZED picks once: with statistics of an empty table, a plan may ask a subquery
-- again for each row, which skips what it has locked and goes on beyond the limit.
WITH due AS MATERIALIZED (
    SELECT recording_id FROM embedding_queue
    WHERE status IN ('pending', 'failed') AND crashes = :crashes AND next_attempt_at <= now()
    ORDER BY next_attempt_at, recording_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE embedding_queue AS claimed
SET status = 'processing', claimed_by = :run_id, started_at = now(),
    claim_id = gen_random_uuid(), lease_expires_at = now() + :lease
FROM due
WHERE claimed.recording_id = due.recording_id
RETURNING claimed.recording_id, claimed.claim_id, claimed.attempts, claimed.crashes,
    claimed.error_kind;

-- name: fewest_crashes_of(recording_ids)$
-- The fewest crashes among these recordings, in any state, but not under a valid lease.
SELECT min(crashes) FROM embedding_queue
WHERE recording_id = ANY(:recording_ids::text[]) AND status <> 'processing';

-- name: claim_these(run_id, lease, recording_ids, crashes, limit)
-- Claims those of these with this number of crashes, in any state, but not under a valid lease.
WITH free AS MATERIALIZED (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id = ANY(:recording_ids::text[]) AND status <> 'processing'
        AND crashes = :crashes
    ORDER BY recording_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE embedding_queue AS claimed
SET status = 'processing', claimed_by = :run_id, started_at = now(),
    claim_id = gen_random_uuid(), lease_expires_at = now() + :lease
FROM free
WHERE claimed.recording_id = free.recording_id
RETURNING claimed.recording_id, claimed.claim_id, claimed.attempts, claimed.crashes,
    claimed.error_kind;

-- name: fewest_crashes_of_dead_letters(max_recoveries)$
-- The fewest crashes among the dead letters that may be recovered without a person.
SELECT min(crashes) FROM embedding_queue
WHERE status = 'dead_letter' AND recoveries < :max_recoveries AND next_attempt_at <= now();

-- name: claim_dead_letters(run_id, lease, max_recoveries, crashes, limit)
-- Claims dead letters with this number of crashes, oldest first, not those past the recovery limit.
WITH due AS MATERIALIZED (
    SELECT recording_id FROM embedding_queue
    WHERE status = 'dead_letter' AND recoveries < :max_recoveries AND next_attempt_at <= now()
        AND crashes = :crashes
    ORDER BY next_attempt_at, recording_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE embedding_queue AS claimed
SET status = 'processing', claimed_by = :run_id, started_at = now(),
    claim_id = gen_random_uuid(), lease_expires_at = now() + :lease, recoveries = claimed.recoveries + 1
FROM due
WHERE claimed.recording_id = due.recording_id
RETURNING claimed.recording_id, claimed.claim_id, claimed.attempts, claimed.crashes,
    claimed.error_kind;

-- name: renew_leases(lease, run_id)!
-- Renews this run's leases. Rows are locked in order, and rows that a recorder's transaction has
-- locked are skipped: a renewal never waits for those.
UPDATE embedding_queue AS renewed SET lease_expires_at = now() + :lease
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE status = 'processing' AND claimed_by = :run_id
    ORDER BY recording_id
    FOR UPDATE SKIP LOCKED
) AS held
WHERE renewed.recording_id = held.recording_id;

-- name: lock_claim(recording_id, run_id, claim_id)^
-- Locks the queue row until the end of the transaction; gives no row when the claim is lost.
SELECT attempts FROM embedding_queue
WHERE recording_id = :recording_id AND status = 'processing' AND claimed_by = :run_id
    AND claim_id = :claim_id
FOR UPDATE;

-- name: complete(changed, version, chunks, tokens, recording_id)!
-- Ends a claim with success; due again at once if the transcript changed meanwhile.
UPDATE embedding_queue
SET status = CASE WHEN :changed THEN 'pending' ELSE 'completed' END,
    claimed_by = NULL, lease_expires_at = NULL, completed_at = now(), next_attempt_at = now(),
    attempts = 0, recoveries = 0, crashes = 0, last_error = NULL, error_kind = NULL,
    transcript_version = :version, chunk_count = :chunks, token_count = :tokens
WHERE recording_id = :recording_id;

-- name: fail(max_attempts, error_kind, error, recording_id)!
-- Ends a claim with failure: due again after 30·3^(n-1) seconds, or a dead letter for an hour.
UPDATE embedding_queue
SET status = CASE WHEN attempts + 1 >= :max_attempts THEN 'dead_letter' ELSE 'failed' END,
    claimed_by = NULL, lease_expires_at = NULL, attempts = attempts + 1,
    next_attempt_at = now() + CASE WHEN attempts + 1 >= :max_attempts THEN interval '1 hour'
                                   ELSE interval '30 seconds' * 3 ^ attempts END,
    error_kind = :error_kind, last_error = :error
WHERE recording_id = :recording_id;

-- name: release(run_id, max_attempts)!
-- Releases the leases of a run; no attempt and no recovery is counted.
UPDATE embedding_queue AS released
SET status = CASE WHEN attempts >= :max_attempts THEN 'dead_letter' ELSE 'pending' END,
    recoveries = CASE WHEN attempts >= :max_attempts THEN greatest(recoveries - 1, 0)
                      ELSE recoveries END,
    claimed_by = NULL, lease_expires_at = NULL
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE status = 'processing' AND claimed_by = :run_id
    ORDER BY recording_id
    FOR UPDATE SKIP LOCKED
) AS held
WHERE released.recording_id = held.recording_id;

-- name: note_unreleased(run_id)!
-- Writes down that a run gave back what it could not release, as a recorder's transaction has the row
-- locked: it is free when its lease ends, and that is no crash.
INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, model, outcome, seconds)
SELECT claim_id, recording_id, claimed_by, 'standard',
       (SELECT model FROM embedding_models WHERE is_live), 'released',
       greatest(0, extract(epoch FROM now() - started_at))
FROM embedding_queue
WHERE status = 'processing' AND claimed_by = :run_id AND claim_id IS NOT NULL
ON CONFLICT (attempt_id) DO NOTHING;

-- name: forget(recording_id)!
-- Ends the claim on a recording whose call was deleted.
DELETE FROM embedding_queue WHERE recording_id = :recording_id;

-- name: expire_claims(dead_run, run_id, error, max_attempts)
-- Frees the recordings of runs whose leases expired, and of one run that is known to be dead; gives
-- these runs, one or several times.
-- A recording that the dead run held alone gets a failed attempt: it alone can have killed the run.
-- Where the run held several, each gets a crash and is due at once, in quarantine.
WITH dead_runs AS (
    -- All leases of a run are renewed together, but for rows that are locked at that moment.
    SELECT claimed_by AS run_id, count(*) AS held FROM embedding_queue
    WHERE status = 'processing' AND claimed_by <> :run_id
    GROUP BY claimed_by
    HAVING max(lease_expires_at) < now() OR claimed_by = :dead_run
), dead AS (
    SELECT queued.recording_id, queued.claimed_by, queued.started_at, queued.attempts,
           queued.crashes, given_back.is_so AS given_back,
           NOT given_back.is_so AND dead_runs.held = 1 AND NOT EXISTS (
               -- The run's other rows may have been freed earlier, while this one was locked.
               SELECT FROM embedding_attempts AS earlier
               WHERE earlier.run_id = queued.claimed_by AND earlier.error_kind = 'crashed'
                   AND earlier.finished_at >= queued.started_at) AS alone
    FROM embedding_queue AS queued
    JOIN dead_runs ON dead_runs.run_id = queued.claimed_by
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM embedding_attempts AS ended
            WHERE ended.attempt_id = queued.claim_id) AS is_so
    ) AS given_back
    WHERE queued.status = 'processing'
        -- Checked again under the lock, because the lease may have been renewed in between.
        AND (queued.lease_expires_at < now() OR queued.claimed_by = :dead_run)
    ORDER BY queued.recording_id
    FOR UPDATE OF queued SKIP LOCKED
), attempt AS (
    -- The model is the live one, because runs work with no other. The lane is the one that the queue
    -- gave; the run may have chosen a more careful one.
    INSERT INTO embedding_attempts
        (attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, seconds)
    SELECT gen_random_uuid(), recording_id, claimed_by,
           CASE WHEN attempts + crashes > 0 THEN 'small_batch' ELSE 'standard' END,
           (SELECT model FROM embedding_models WHERE is_live),
           CASE WHEN alone THEN 'failed' ELSE 'released' END, 'crashed', :error,
           greatest(0, extract(epoch FROM now() - started_at))
    FROM dead
    WHERE NOT given_back
)
UPDATE embedding_queue AS taken
SET status = CASE WHEN dead.attempts + dead.alone::int >= :max_attempts THEN 'dead_letter'
                  WHEN dead.alone THEN 'failed' ELSE 'pending' END,
    claimed_by = NULL, lease_expires_at = NULL, attempts = dead.attempts + dead.alone::int,
    recoveries = CASE WHEN dead.attempts >= :max_attempts AND NOT dead.alone
                      THEN greatest(taken.recoveries - 1, 0) ELSE taken.recoveries END,
    crashes = least(dead.crashes + (NOT dead.given_back)::int, 100),
    next_attempt_at = CASE WHEN NOT dead.alone THEN least(taken.next_attempt_at, now())
                           WHEN dead.attempts + 1 >= :max_attempts THEN now() + interval '1 hour'
                           ELSE now() END,
    error_kind = CASE WHEN dead.alone THEN 'crashed' ELSE taken.error_kind END,
    last_error = CASE WHEN dead.alone THEN :error ELSE taken.last_error END
FROM dead
WHERE taken.recording_id = dead.recording_id
RETURNING dead.claimed_by AS run_id;

-- name: record_attempt(attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, chunks, embedded, reused, requests, tokens, cost_usd, seconds, smallest_insert_batch, refusals)!
-- Adds an attempt to the history; every trend and every cost is computed from it.
INSERT INTO embedding_attempts
    (attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, chunks, embedded,
     reused, requests, tokens, cost_usd, seconds, smallest_insert_batch, refusals)
VALUES
    (:attempt_id, :recording_id, :run_id, :lane, :model, :outcome, :error_kind, :error, :chunks,
     :embedded, :reused, :requests, :tokens, :cost_usd, :seconds, :smallest_insert_batch,
     :refusals)
ON CONFLICT (attempt_id) DO NOTHING;

-- name: tokens_today()$
-- Tokens of the attempts that ended today (UTC), in every lane.
SELECT coalesce(sum(tokens), 0)::bigint FROM embedding_attempts
WHERE finished_at >= date_trunc('day', now(), 'UTC');

-- name: attempt_is_recorded(attempt_id)$
-- Whether this attempt ended already: true if its commit succeeded and only the answer was lost.
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
SELECT count(*) FILTER (WHERE outcome IN ('published', 'source_gone')) AS processed,
       count(*) FILTER (WHERE outcome = 'failed') AS failed,
       coalesce(sum(chunks) FILTER (WHERE outcome = 'published'), 0)::bigint AS chunks,
       coalesce(sum(embedded), 0)::bigint AS embedded,
       coalesce(sum(tokens), 0)::bigint AS tokens,
       sum(cost_usd) AS cost_usd
FROM embedding_attempts WHERE run_id = :run_id;

-- name: count_due()$
-- What a worker would claim: due, or its lease expired.
SELECT (
    SELECT count(*) FROM embedding_queue
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
) + (
    SELECT count(*) FROM embedding_queue WHERE status = 'processing' AND lease_expires_at < now()
);

-- name: tracking()^
-- How many calls and rows in the queue there are, and whether a trigger queues every new call.
SELECT (SELECT count(*) FROM fathom_calls) AS calls,
       (SELECT count(*) FROM embedding_queue) AS queued,
       EXISTS (SELECT FROM pg_trigger
               WHERE tgrelid = to_regclass('fathom_calls') AND tgname = 'embedding_assets_insert'
                   AND tgenabled IN ('O', 'A')) AS is_tracked;

-- name: count_unqueued()$
-- Calls that have no row in the queue.
SELECT count(*) FROM fathom_calls AS calls
WHERE NOT EXISTS (
    SELECT FROM embedding_queue AS queued
    WHERE queued.recording_id = calls.recording_id::text);

-- name: count_deleted()$
-- Recordings whose call was deleted and that are not queued for withdrawal yet.
SELECT count(*) FROM embedding_queue AS queued
WHERE queued.status IN ('completed', 'dead_letter')
    AND NOT EXISTS (
        SELECT FROM fathom_calls AS calls
        WHERE calls.recording_id::text = queued.recording_id);

-- name: held()
-- What living runs are working on.
SELECT recording_id, claimed_by FROM embedding_queue
WHERE status = 'processing' AND lease_expires_at >= now();

-- name: count_recoverable(max_recoveries)$
-- Dead letters that may be tried again without a person.
SELECT count(*) FROM embedding_queue
WHERE status = 'dead_letter' AND recoveries < :max_recoveries AND next_attempt_at <= now();
