-- name: limit_statements()$
-- Limits how long a health query may take; one that waits for a lock or a disk becomes a finding.
SELECT set_config('statement_timeout', '30s', true);

-- name: database_bytes()$
-- How much room the application's database takes.
SELECT pg_database_size(current_database());

-- name: limit_memory()$
-- Lets the statements of this transaction sort little in memory.
SELECT set_config('work_mem', '1MB', true);

-- name: write_a_temporary_file()$
-- Sorts 8 MB outside of memory, which fails where the disk is full: all that a client can see of it.
SELECT count(*) FROM (
    SELECT FROM generate_series(1, 8000) AS n
    ORDER BY repeat(md5(n::text), 32), n
    OFFSET 1
) AS sorted;

-- name: has_daemon_heartbeats()$
-- Whether Dagster's storage has been used by a version that has daemons.
SELECT to_regclass('daemon_heartbeats') IS NOT NULL;

-- name: daemon_heartbeats(daemons)
-- When each of these daemons last said that it is there. The body has it in seconds; the column of
-- that name has it in the time zone of whoever wrote it.
SELECT daemon_type AS daemon,
       max(to_timestamp((body::jsonb ->> 'timestamp')::double precision)) AS heard_at
FROM daemon_heartbeats
WHERE daemon_type = ANY(:daemons::text[])
GROUP BY daemon_type;

-- name: health_numbers(max_attempts, max_recoveries, cut_as)^
-- Everything that health is judged by, counted at one moment from the whole tables, in one row.
SELECT now() AS checked_at, recordings.*, unqueued.*, deleted.*, activity.*, today.*,
       newest.last_published_at, refused.configuration_error,
       refused.configuration_error_at, live.model AS live_model, inspected.*, cut.*,
       words.language AS search_language, coalesce(words.counted_chunks, 0) AS words_counted,
       (SELECT count(*) FROM integrity_findings) AS broken,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector_version
FROM (
    SELECT max(finished_at) AS last_published_at FROM embedding_attempts
    WHERE outcome = 'published'
) AS newest
LEFT JOIN search_languages AS words ON words.is_live
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'pending' AND NOT in_batch) AS pending,
           count(*) FILTER (WHERE in_batch) AS in_batches,
           count(*) FILTER (WHERE status = 'processing') AS processing,
           count(*) FILTER (WHERE status = 'completed') AS completed,
           count(*) FILTER (WHERE status = 'failed') AS failed,
           count(*) FILTER (WHERE status = 'dead_letter') AS dead_letters,
           count(*) FILTER (WHERE status = 'dead_letter' AND recoveries >= :max_recoveries)
               AS waiting_for_person,
           min(next_attempt_at) FILTER (
               WHERE status = 'dead_letter' AND recoveries < :max_recoveries
                   AND next_attempt_at <= now()) AS recoverable_since,
           count(*) FILTER (
               WHERE status = 'dead_letter'
                   AND enqueued_at > coalesce(newest.last_published_at, '-infinity'))
               AS given_up_lately,
           min(enqueued_at) FILTER (
               WHERE status = 'dead_letter'
                   AND enqueued_at > coalesce(newest.last_published_at, '-infinity'))
               AS given_up_lately_since,
           count(*) FILTER (WHERE status IN ('pending', 'failed') AND next_attempt_at <= now())
               AS claimable,
           -- Not next_attempt_at: every failure moves it. A recording that was published or given
           -- up before waits since the present claim or retry.
           min(CASE WHEN completed_at > enqueued_at OR attempts >= :max_attempts
                    THEN greatest(enqueued_at, started_at) ELSE enqueued_at END)
               FILTER (WHERE status IN ('pending', 'processing', 'failed') AND NOT in_batch)
               AS unfinished_since,
           count(*) FILTER (WHERE status = 'processing' AND lease_expires_at < now())
               AS stale_claims,
           coalesce(sum(chunk_count), 0)::bigint AS chunks,
           max(reconciled_at) AS reconciled_at,
           CASE WHEN words.counted_chunks = 0 AND sum(chunk_count) > 0 THEN words.counted_at
                ELSE min(completed_at) FILTER (
                    WHERE chunk_count > 0 AND completed_at > words.counted_at) END
               AS words_uncounted_since
    FROM (
        -- A recording that waits for a batch is due at exactly the batch's deadline.
        SELECT *, status IN ('pending', 'failed') AND next_attempt_at > now()
                  AND next_attempt_at = ANY (ARRAY(
                      SELECT deadline FROM embedding_batches WHERE state <> 'ended')) AS in_batch
        FROM embedding_queue
    ) AS queued
) AS recordings
CROSS JOIN (
    SELECT count(*) AS unqueued
    FROM fathom_calls AS calls
    WHERE NOT EXISTS (
        SELECT FROM embedding_queue AS queued
        WHERE queued.recording_id = calls.recording_id::text)
) AS unqueued
CROSS JOIN (
    SELECT count(*) AS deleted
    FROM embedding_queue AS queued
    WHERE queued.status IN ('completed', 'dead_letter')
        AND NOT EXISTS (
            SELECT FROM fathom_calls AS calls
            WHERE calls.recording_id::text = queued.recording_id)
) AS deleted
CROSS JOIN (
    SELECT count(*) FILTER (WHERE outcome = 'published') AS published_last_hour,
           count(*) FILTER (WHERE outcome = 'failed') AS failures_last_hour,
           coalesce(sum(embedded), 0)::bigint AS embedded_last_hour
    FROM embedding_attempts
    WHERE finished_at > now() - interval '1 hour'
) AS activity
CROSS JOIN (
    SELECT coalesce(sum(requests), 0)::bigint AS requests_today,
           coalesce(sum(tokens), 0)::bigint AS tokens_today,
           sum(cost_usd)::double precision AS cost_today_usd,
           CASE WHEN max(finished_at) FILTER (WHERE error_kind = 'budget')
                    >= coalesce(max(finished_at) FILTER (WHERE embedded > 0), '-infinity')
                THEN max(finished_at) FILTER (WHERE error_kind = 'budget') END AS budget_spent_at
    FROM embedding_attempts
    WHERE finished_at >= date_trunc('day', now(), 'UTC')
) AS today
CROSS JOIN (
    SELECT max(looked_until) AS looked_until, max(round_started_at) AS round_started_at,
           max(last_round_ended_at) AS last_round_ended_at, max(inspected_at) AS inspected_at,
           coalesce(max(recordings), 0) AS inspected_recordings,
           coalesce(max(chunks), 0) AS inspected_chunks
    FROM integrity_progress
) AS inspected
CROSS JOIN (
    SELECT count(*) FILTER (WHERE cut_as <> :cut_as) AS cut_otherwise,
           count(*) FILTER (WHERE cut_as IS NULL AND chunk_count > 0) AS cut_unknown
    FROM published_recordings
) AS cut
LEFT JOIN embedding_models AS live ON live.is_live
LEFT JOIN LATERAL (
    -- The error counts as mended once something was embedded after it.
    SELECT failed.error AS configuration_error, failed.finished_at AS configuration_error_at
    FROM (
        SELECT error, finished_at FROM embedding_attempts
        WHERE error_kind = 'configuration' ORDER BY finished_at DESC LIMIT 1
    ) AS failed
    WHERE NOT EXISTS (
        SELECT FROM embedding_attempts AS succeeded
        WHERE succeeded.outcome = 'published' AND succeeded.embedded > 0
            AND succeeded.finished_at > failed.finished_at)
) AS refused ON true;

-- name: costs_today()
-- What was spent today (UTC), by model and lane.
SELECT model, lane, sum(requests)::bigint AS requests, sum(tokens)::bigint AS tokens,
       sum(cost_usd)::double precision AS cost_usd
FROM embedding_attempts
WHERE finished_at >= date_trunc('day', now(), 'UTC') AND (requests > 0 OR tokens > 0)
    AND model IS NOT NULL
GROUP BY model, lane ORDER BY tokens DESC, model, lane;

-- name: worst_dead_letters(limit, max_recoveries)
-- Dead letters, those that wait for a person first, then those that have waited longest.
SELECT recording_id, attempts, recoveries, recoveries >= :max_recoveries AS waits_for_person,
       error_kind, last_error, next_attempt_at
FROM embedding_queue
WHERE status = 'dead_letter'
ORDER BY recoveries >= :max_recoveries DESC, next_attempt_at, recording_id
LIMIT :limit;

-- name: longest_waiting(limit)
-- What a worker would claim first.
SELECT recording_id, status, enqueued_at FROM embedding_queue
WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
ORDER BY crashes, next_attempt_at, recording_id
LIMIT :limit;

-- name: stalest_claims(limit)
-- Claims of runs that died, oldest first.
SELECT recording_id, claimed_by, lease_expires_at FROM embedding_queue
WHERE status = 'processing' AND lease_expires_at < now()
ORDER BY lease_expires_at
LIMIT :limit;

-- name: runs_in_flight()
-- The runs that hold claims, with the number of recordings and the end of their leases.
SELECT claimed_by AS run_id, count(*) AS recordings, min(started_at) AS holds_since,
       max(lease_expires_at) AS lease_expires_at
FROM embedding_queue
WHERE status = 'processing'
GROUP BY claimed_by
ORDER BY min(started_at);

-- name: attempts_since(since)
-- What attempts did since then, an outcome and a kind of failure a row.
SELECT outcome, error_kind, count(*) AS attempts, sum(embedded)::bigint AS embedded,
       sum(requests)::bigint AS requests, sum(refusals)::bigint AS refusals,
       sum(tokens)::bigint AS tokens
FROM embedding_attempts
WHERE finished_at >= :since
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: paces()
-- What each model's account lets through, as its server told.
SELECT model, tokens_per_minute FROM embedding_accounts
WHERE tokens_per_minute IS NOT NULL ORDER BY model;

-- name: attempts_by_hour(since)
-- The history of attempts, for trends: an hour, an outcome and a kind of failure a row.
SELECT date_trunc('hour', finished_at, 'UTC') AS hour, outcome, error_kind,
       count(*) AS attempts, sum(chunks)::bigint AS chunks, sum(embedded)::bigint AS embedded,
       sum(tokens)::bigint AS tokens, sum(cost_usd)::double precision AS cost_usd
FROM embedding_attempts
WHERE finished_at >= :since
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;
