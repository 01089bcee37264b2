-- Reads of the recorders' tables. Ids go in as untyped literals, so that an index on a bigint or a
-- uuid serves them as well as one on text; they come out as text. Columns that some recorders lack
-- are read through to_jsonb, which gives NULL for a column that is not there.

-- name: call(recording_id)^
-- Title, date and owner of one recording; no row when the call is gone.
SELECT
    calls.title,
    coalesce(to_jsonb(calls) ->> 'recorded_at',
             to_jsonb(calls) ->> 'created_at')::timestamptz AS recorded_at,
    to_jsonb(calls) ->> 'user_id' AS user_id
FROM fathom_calls AS calls
WHERE calls.recording_id = :recording_id;

-- name: segments(recording_id)
-- What was said and not deleted, in order; an edit wins over what the recorder heard.
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

-- name: source_ids()
-- Every recording there is.
SELECT recording_id::text FROM fathom_calls;
