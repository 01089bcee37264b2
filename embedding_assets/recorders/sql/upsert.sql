-- name: upsert_call(recording_id, title, recorded_at, duration, url, recorded_by_name, recorded_by_email, source_platform)!
-- Adds the call, or corrects what differs; a value that the recorder does not give is kept.
INSERT INTO fathom_calls AS calls
    (recording_id, title, recorded_at, duration, url, recorded_by_name, recorded_by_email,
     source_platform)
VALUES
    (:recording_id, :title, :recorded_at, :duration, :url, :recorded_by_name, :recorded_by_email,
     :source_platform)
ON CONFLICT (recording_id) DO UPDATE SET
    title = excluded.title,
    recorded_at = coalesce(excluded.recorded_at, calls.recorded_at),
    duration = coalesce(excluded.duration, calls.duration),
    url = coalesce(excluded.url, calls.url),
    recorded_by_name = coalesce(excluded.recorded_by_name, calls.recorded_by_name),
    recorded_by_email = coalesce(excluded.recorded_by_email, calls.recorded_by_email),
    source_platform = excluded.source_platform
WHERE (calls.title, calls.recorded_at, calls.duration, calls.url, calls.recorded_by_name,
       calls.recorded_by_email, calls.source_platform)
    IS DISTINCT FROM
      (excluded.title, coalesce(excluded.recorded_at, calls.recorded_at),
       coalesce(excluded.duration, calls.duration), coalesce(excluded.url, calls.url),
       coalesce(excluded.recorded_by_name, calls.recorded_by_name),
       coalesce(excluded.recorded_by_email, calls.recorded_by_email), excluded.source_platform);

-- name: upsert_segments(recording_id, positions, speakers, emails, starts, ends, texts)!
-- Adds the segments, or corrects those that differ.
INSERT INTO fathom_transcripts AS segments
    (recording_id, position, speaker_name, speaker_email, start_seconds, end_seconds, text)
SELECT :recording_id, position, speaker, email, start_seconds, end_seconds, text
FROM unnest(:positions::integer[], :speakers::text[], :emails::text[],
            :starts::double precision[], :ends::double precision[], :texts::text[])
    AS batch (position, speaker, email, start_seconds, end_seconds, text)
ON CONFLICT (recording_id, position) DO UPDATE SET
    speaker_name = excluded.speaker_name,
    speaker_email = excluded.speaker_email,
    start_seconds = excluded.start_seconds,
    end_seconds = excluded.end_seconds,
    text = excluded.text
WHERE (segments.speaker_name, segments.speaker_email, segments.start_seconds,
       segments.end_seconds, segments.text)
    IS DISTINCT FROM
      (excluded.speaker_name, excluded.speaker_email, excluded.start_seconds,
       excluded.end_seconds, excluded.text);

-- name: delete_later_segments(recording_id, positions)!
-- Deletes the segments that the recorder no longer has.
DELETE FROM fathom_transcripts
WHERE recording_id = :recording_id AND position NOT IN (SELECT unnest(:positions::integer[]));
