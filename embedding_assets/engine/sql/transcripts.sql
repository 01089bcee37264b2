-- Reads of the recorders' tables. Ids go in as untyped literals, so that an index on a bigint or a
-- uuid serves them as well as one on text; they come out as text. Columns that some recorders lack
-- are read through to_jsonb, which gives NULL for a column that is not there.

-- name: call(recording_id)^
-- What is known of one call; no row when it is gone. Where the recorder has a column for the date,
-- a date that is not there is unknown; created_at is when the row was made.
SELECT
    calls.title,
    CASE WHEN to_jsonb(calls) ? 'recorded_at' THEN to_jsonb(calls) ->> 'recorded_at'
         ELSE to_jsonb(calls) ->> 'created_at' END::timestamptz AS recorded_at,
    CASE WHEN jsonb_typeof(to_jsonb(calls) -> 'duration') = 'number'
         THEN (to_jsonb(calls) ->> 'duration')::double precision END AS duration_seconds,
    to_jsonb(calls) ->> 'url' AS url,
    to_jsonb(calls) ->> 'source_platform' AS source_platform,
    to_jsonb(calls) ->> 'user_id' AS user_id
FROM fathom_calls AS calls
WHERE calls.recording_id = :recording_id;

-- name: segments(recording_id)
-- What was said and not deleted, in order, as a `Segment` has it; an edit wins over what the recorder
-- heard.
SELECT
    position,
    speaker_name,
    coalesce(edited_text, text, '') AS text,
    start_seconds,
    end_seconds
FROM fathom_transcripts
WHERE recording_id = :recording_id AND is_deleted IS NOT TRUE
ORDER BY position;

-- name: transcript_version(recording_id)$
-- A fingerprint of all that is read of one recording: equal if and only if nothing changed.
-- Dates go in as epochs, which no time zone of a session changes.
SELECT encode(sha256(convert_to(
    (SELECT ROW(calls.title,
                extract(epoch FROM (to_jsonb(calls) ->> 'recorded_at')::timestamptz),
                extract(epoch FROM (to_jsonb(calls) ->> 'created_at')::timestamptz),
                to_jsonb(calls) ->> 'user_id')::text
     FROM fathom_calls AS calls
     WHERE calls.recording_id = :recording_id)
    || coalesce(
        (SELECT string_agg(ROW(position, speaker_name, coalesce(edited_text, text, ''),
                               start_seconds, end_seconds)::text, ',' ORDER BY position)
         FROM fathom_transcripts
         WHERE recording_id = :recording_id AND is_deleted IS NOT TRUE), ''),
    'UTF8')), 'hex');

-- name: hidden_by_policy()^
-- Whether row-level security applies to this role, and whether the tables' owner has left a function
-- that sees all calls (deploy/roles.sql).
SELECT row_security_active('fathom_calls') AS calls,
       row_security_active('fathom_transcripts') AS transcripts,
       to_regprocedure('call_exists(text)') IS NOT NULL AS can_ask;

-- name: count_published_without_call()^
-- Published recordings, and those of them whose call this role does not see.
SELECT count(*) AS published,
       count(*) FILTER (WHERE NOT EXISTS (
           SELECT FROM fathom_calls AS calls
           WHERE calls.recording_id::text = queued.recording_id)) AS unseen
FROM embedding_queue AS queued
WHERE status = 'completed';

-- name: count_hidden()$
-- Published recordings whose call this role does not see although it is there, or may be.
SELECT count(*) FROM embedding_queue AS queued
WHERE status = 'completed' AND NOT EXISTS (
    SELECT FROM fathom_calls AS calls WHERE calls.recording_id::text = queued.recording_id)
  AND call_exists(queued.recording_id) IS NOT FALSE;

-- name: call_is_there(recording_id)$
-- What the tables' owner sees of a call that row-level security may hide; NULL: it cannot tell.
SELECT call_exists(:recording_id);

-- name: sees_transcripts()$
-- Whether this role sees any segment, or there is no call that could have one.
SELECT EXISTS (SELECT FROM fathom_transcripts) OR NOT EXISTS (SELECT FROM fathom_calls);

-- name: source_ids()
-- Every recording there is.
SELECT recording_id::text FROM fathom_calls;

-- name: source_ids_since(since)
-- The recordings of calls from then on; a call without a date is none of them. A name that the table
-- has no column for means that of `absent`, so that the columns are read as they are: to_jsonb of each
-- row takes ten times as long.
SELECT calls.recording_id::text
FROM (VALUES ('-infinity'::timestamptz, '-infinity'::timestamptz))
    AS absent (recorded_at, created_at)
CROSS JOIN LATERAL (
    SELECT recording_id, recorded_at::timestamptz, created_at::timestamptz FROM fathom_calls
) AS calls
WHERE calls.recorded_at >= :since
    OR (calls.recorded_at = '-infinity' AND calls.created_at >= :since);
