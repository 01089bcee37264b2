-- Published calls and what was said in them, as their readers may see them.

-- name: calls(filters, before_at, before_id, limit)
-- The newest calls from one on, with who spoke, in the order in which they first did.
SELECT calls.recording_id, calls.title, calls.recorded_at, calls.duration AS duration_seconds,
       calls.url, calls.source_platform, calls.chunk_count,
       ARRAY(SELECT speaker
             FROM transcript_chunks AS chunks
             CROSS JOIN unnest(chunks.speakers) WITH ORDINALITY AS spoke (speaker, place)
             WHERE chunks.recording_id = calls.recording_id
             GROUP BY speaker ORDER BY min(chunk_index), min(place)) AS speakers
FROM newest_recordings(:filters::jsonb, :before_at::timestamptz, :before_id::text, :limit::integer) AS calls
ORDER BY coalesce(calls.recorded_at, '-infinity') DESC, calls.recording_id DESC;

-- name: chunks_of(recording_id, first_position, last_position, from_seconds, until_seconds)
-- The chunks of a call that say something between these positions and seconds, both included.
SELECT chunk_index, chunk_text, speakers, start_seconds, first_position, repeated, turn_offsets,
       turn_positions, turn_seconds, turn_speakers
FROM transcript_chunks
WHERE recording_id = :recording_id
  AND (last_position >= :first_position::integer) IS NOT FALSE
  AND (first_position <= :last_position::integer) IS NOT FALSE
  AND (end_seconds >= :from_seconds::double precision) IS NOT FALSE
  AND (start_seconds <= :until_seconds::double precision) IS NOT FALSE
ORDER BY chunk_index;

-- name: platforms(among)
-- The recorders that the reader's newest calls came from.
SELECT DISTINCT source_platform FROM newest_recordings('{}', NULL, NULL, :among)
WHERE source_platform IS NOT NULL
ORDER BY source_platform;
