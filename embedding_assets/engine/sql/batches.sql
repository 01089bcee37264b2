-- name: in_open_batches(model, hashes)
-- Which of these texts are in a batch whose answers are still waited for, and until when.
SELECT inputs.content_hash, batches.deadline
FROM embedding_batch_inputs AS inputs JOIN embedding_batches AS batches USING (batch_id)
WHERE inputs.model = :model AND inputs.content_hash = ANY(:hashes::bytea[])
    AND batches.deadline > now();

-- name: wait_for_batch(recording_id, run_id, claim_id, until)!
-- Gives a claimed recording back until its batch has ended; no attempt is counted.
UPDATE embedding_queue
SET status = 'pending', claimed_by = NULL, lease_expires_at = NULL, next_attempt_at = :until
WHERE recording_id = :recording_id AND claimed_by = :run_id AND claim_id = :claim_id
    AND status = 'processing';

-- name: batch_candidates(limit)
-- Recordings that a worker would take now, those due longest first.
SELECT recording_id FROM embedding_queue
WHERE status IN ('pending', 'failed') AND next_attempt_at <= now() AND crashes = 0
ORDER BY next_attempt_at, recording_id
LIMIT :limit;

-- name: plan_batch(batch_id, model, inputs, tokens, began_at, deadline)!
-- Writes a batch down before anything is sent; what is due was read when it began.
INSERT INTO embedding_batches
    (batch_id, model, state, inputs, planned_tokens, created_at, deadline)
VALUES (:batch_id, :model, 'planned', :inputs, :tokens, :began_at, :deadline);

-- name: plan_inputs(batch_id, model, hashes, recording_ids)!
-- Puts texts into a batch, those that are in no other.
INSERT INTO embedding_batch_inputs (model, content_hash, batch_id, recording_id)
SELECT :model, content_hash, :batch_id, recording_id
FROM unnest(:hashes::bytea[], :recording_ids::text[]) AS input (content_hash, recording_id)
ORDER BY content_hash
ON CONFLICT DO NOTHING;

-- name: let_wait(recording_ids, until)!
-- Recordings that no run holds wait for a batch. Rows are locked in order here and below, as
-- recorders' transactions lock them.
UPDATE embedding_queue AS waiting SET next_attempt_at = :until
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE recording_id = ANY(:recording_ids) AND status IN ('pending', 'failed')
    ORDER BY recording_id
    FOR NO KEY UPDATE
) AS free
WHERE waiting.recording_id = free.recording_id;

-- name: open_batches()
-- The batches that have not ended, oldest first.
SELECT * FROM embedding_batches WHERE state <> 'ended' ORDER BY created_at, batch_id;

-- name: take_batch(batch_id, lease)^
-- Takes a batch for one step of work, so that no other process does it; no row if another has it.
UPDATE embedding_batches SET not_before = now() + :lease
WHERE batch_id = :batch_id AND state <> 'ended' AND not_before <= now()
RETURNING *;

-- name: look_again(batch_id, seconds, status)!
-- When the batch is looked at next.
UPDATE embedding_batches
SET not_before = now() + :seconds * interval '1 second', provider_status = :status
WHERE batch_id = :batch_id AND state <> 'ended';

-- name: batch_inputs(batch_id)
-- The texts of a batch, and the recordings that say them.
SELECT content_hash, recording_id FROM embedding_batch_inputs
WHERE batch_id = :batch_id ORDER BY recording_id, content_hash;

-- name: drop_inputs(batch_id, hashes)!
-- Takes texts out of a batch.
DELETE FROM embedding_batch_inputs
WHERE batch_id = :batch_id AND content_hash = ANY(:hashes::bytea[]);

-- name: file_sent(batch_id, taken, file)$
-- The provider has the file; NULL if another process has taken the batch since.
UPDATE embedding_batches SET input_file = :file
WHERE batch_id = :batch_id AND not_before = :taken
RETURNING true;

-- name: batch_sent(batch_id, provider_batch, status)!
-- The provider has the batch.
UPDATE embedding_batches
SET state = 'submitted', provider_batch = :provider_batch, provider_status = :status,
    submitted_at = coalesce(submitted_at, now()), not_before = now()
WHERE batch_id = :batch_id;

-- name: send_later(batch_id, seconds, error)!
-- The provider takes no more batches now: this one is sent again later.
UPDATE embedding_batches
SET state = 'planned', input_file = NULL, provider_batch = NULL, error = :error,
    not_before = now() + :seconds * interval '1 second'
WHERE batch_id = :batch_id;

-- name: end_batch(batch_id, status, embedded, error)!
-- Ends a batch.
UPDATE embedding_batches
SET state = 'ended', ended_at = now(), provider_status = :status, embedded = :embedded,
    error = :error
WHERE batch_id = :batch_id;

-- name: drop_all_inputs(batch_id)!
-- No text waits for the batch any more.
DELETE FROM embedding_batch_inputs WHERE batch_id = :batch_id;

-- name: stop_waiting(deadline)!
-- The recordings that waited for a batch are due now.
UPDATE embedding_queue AS due SET next_attempt_at = now()
FROM (
    SELECT recording_id FROM embedding_queue
    WHERE next_attempt_at = :deadline AND status IN ('pending', 'failed')
    ORDER BY recording_id
    FOR NO KEY UPDATE
) AS waiting
WHERE due.recording_id = waiting.recording_id;

-- name: last_batch_error()$
-- Why the last batch failed that ended within a day; NULL if it did not fail.
SELECT error FROM embedding_batches
WHERE state = 'ended' AND ended_at > now() - interval '1 day'
ORDER BY ended_at DESC LIMIT 1;

-- name: due_characters(limit)$
-- Characters of what recordings say that are due and came or changed after the last batch was
-- planned, counted until there are so many. What was due before is the workers'.
SELECT coalesce(sum(characters), 0)::bigint FROM (
    SELECT length(said.text) AS characters
    FROM embedding_queue AS queued
    JOIN fathom_transcripts AS said ON said.recording_id::text = queued.recording_id
    WHERE queued.status IN ('pending', 'failed') AND queued.next_attempt_at <= now()
        AND queued.enqueued_at > coalesce(
            (SELECT max(created_at) FROM embedding_batches), '-infinity')
    LIMIT :limit
) AS counted;

-- name: ended_with_files()
-- Ended batches whose files the provider still has.
SELECT batch_id, input_file, provider_batch FROM embedding_batches
WHERE state = 'ended' AND input_file IS NOT NULL ORDER BY ended_at;

-- name: files_deleted(batch_id)!
-- The provider has no file of this batch any more.
UPDATE embedding_batches SET input_file = NULL WHERE batch_id = :batch_id;

-- name: has_a_next_step()$
-- Whether a batch is to be sent or looked at now.
SELECT EXISTS (SELECT FROM embedding_batches WHERE state <> 'ended' AND not_before <= now());

-- name: database_time()$
-- The server's time.
SELECT now();

-- name: limit_told(model, tokens_per_minute)!
-- Remembers the limit of an account.
INSERT INTO embedding_accounts AS known (model, tokens_per_minute)
VALUES (:model, :tokens_per_minute)
ON CONFLICT (model) DO UPDATE
    SET tokens_per_minute = EXCLUDED.tokens_per_minute, told_at = now()
    WHERE known.tokens_per_minute IS DISTINCT FROM EXCLUDED.tokens_per_minute;

-- name: batches_lacking(model, lacks)!
-- Remembers whether the server of a model has a batch API.
INSERT INTO embedding_accounts AS known (model, lacks_batches) VALUES (:model, :lacks)
ON CONFLICT (model) DO UPDATE SET lacks_batches = EXCLUDED.lacks_batches, told_at = now()
    WHERE known.lacks_batches <> EXCLUDED.lacks_batches;

-- name: live_account()^
-- What is known of the account of the model that search reads.
SELECT account.tokens_per_minute, account.lacks_batches
FROM embedding_accounts AS account JOIN embedding_models AS live USING (model)
WHERE live.is_live;
