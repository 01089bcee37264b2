-- name: beat(run_id)!
-- This run is alive now.
INSERT INTO run_heartbeats (run_id) VALUES (:run_id)
ON CONFLICT (run_id) DO UPDATE SET beaten_at = now();

-- name: take_for_dead(run_ids)!
-- Whoever these runs are, they claim and write nothing more.
INSERT INTO run_heartbeats AS dead (run_id, dead_since)
SELECT id, now() FROM unnest(:run_ids::text[]) AS id ORDER BY id
ON CONFLICT (run_id) DO UPDATE SET dead_since = coalesce(dead.dead_since, now());

-- name: is_taken_for_dead(run_id)$
-- Whether another run, or Dagster, took this one for dead.
SELECT EXISTS (SELECT FROM run_heartbeats WHERE run_id = :run_id AND dead_since IS NOT NULL);

-- name: forget_beats()!
-- Runs that were alive a week ago have ended since: none may take longer than hours.
DELETE FROM run_heartbeats
WHERE run_id IN (
    SELECT run_id FROM run_heartbeats WHERE beaten_at < now() - interval '7 days'
    FOR UPDATE SKIP LOCKED);

-- name: silent_runs(run_ids, lease)
-- Those of these runs that said nothing for so long, and hold nothing.
SELECT asked.run_id, beats.beaten_at
FROM unnest(:run_ids::text[]) AS asked (run_id)
LEFT JOIN run_heartbeats AS beats USING (run_id)
WHERE (beats.beaten_at IS NULL OR beats.beaten_at < now() - :lease)
    AND NOT EXISTS (
        SELECT FROM embedding_queue AS held
        WHERE held.status = 'processing' AND held.claimed_by = asked.run_id
            AND held.lease_expires_at > now());
