-- Which call a recording is. Ids go in as untyped literals, so that an index on a bigint serves too.

-- name: hold_id(recording_id)!
-- Until the end of the transaction, nobody else stores a recording of this proposed id.
SELECT pg_advisory_xact_lock(hashtextextended('embedding_assets/recording/' || :recording_id, 0));

-- name: like_this_file(recording_id, content_hash)
-- The calls that a file may be: of the same words, or of the same proposed id.
SELECT calls.recording_id::text AS recording_id, details.file, details.content_hash,
       details.file IS NOT NULL
       OR (details.recording_id IS NULL
           AND to_jsonb(calls) ->> 'source_platform' IN ('vtt', 'srt')) AS is_file
FROM fathom_calls AS calls
LEFT JOIN call_details AS details ON details.recording_id = calls.recording_id::text
WHERE calls.recording_id = :recording_id
UNION
SELECT details.recording_id, details.file, details.content_hash, details.file IS NOT NULL
FROM call_details AS details
WHERE (details.content_hash = :content_hash OR details.proposed_id = :recording_id)
  AND EXISTS (SELECT FROM fathom_calls AS calls
              WHERE calls.recording_id::text = details.recording_id)
ORDER BY recording_id;

-- name: platform_of(recording_id)^
-- The recorder that gave the stored call its id, and the file it came from; no row if there is none.
SELECT calls.recording_id::text AS recording_id, details.file,
       to_jsonb(calls) ->> 'source_platform' AS source_platform
FROM fathom_calls AS calls
LEFT JOIN call_details AS details ON details.recording_id = calls.recording_id::text
WHERE calls.recording_id = :recording_id;

-- name: likely_doubles(recording_id, content_hash, recorded_at, title)
-- Other calls with the same words, or of the same minutes and title.
SELECT details.recording_id, details.content_hash = :content_hash AS has_same_words
FROM call_details AS details
WHERE details.recording_id <> :recording_id
  AND (details.content_hash = :content_hash
       OR (details.recorded_at BETWEEN :recorded_at::timestamptz - interval '5 minutes'
                                   AND :recorded_at::timestamptz + interval '5 minutes'
           AND EXISTS (SELECT FROM fathom_calls AS calls
                       WHERE calls.recording_id::text = details.recording_id
                         AND lower(calls.title) = lower(:title))))
ORDER BY details.recording_id
LIMIT 3;
