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

-- name: is_here(recording_id)$
-- Whether there is such a call.
SELECT EXISTS (SELECT FROM fathom_calls WHERE recording_id::text = :recording_id);

-- name: may_change_call(recording_id, reader)$
-- Whether a reader may bring a call that is here already.
SELECT may_change_call(:recording_id, :reader);

-- name: fill_owner(recording_id, owner)!
-- Makes whoever recorded the call its owner, where nobody is and the column takes an address.
UPDATE fathom_calls AS calls SET user_id = :owner
WHERE recording_id = :recording_id AND user_id IS NULL;

-- name: owners_are_text()$
-- Whether fathom_calls has a column for the owner that takes an address.
SELECT EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = 'fathom_calls'::regclass AND attname = 'user_id'
                 AND atttypid IN ('text'::regtype, 'varchar'::regtype) AND NOT attisdropped);

-- name: stored_segments(recording_id)
-- The segments of a recording as they are stored, with what a person made of them.
SELECT position, speaker_name, to_jsonb(said) ->> 'speaker_email' AS speaker_email, start_seconds,
       end_seconds, coalesce(text, '') AS text, edited_text, is_deleted IS TRUE AS is_deleted
FROM fathom_transcripts AS said
WHERE recording_id = :recording_id
ORDER BY position;

-- name: hold_segments(recording_id)
-- The same, and until the end of the transaction nobody else edits them.
SELECT position, speaker_name, to_jsonb(said) ->> 'speaker_email' AS speaker_email, start_seconds,
       end_seconds, coalesce(text, '') AS text, edited_text, is_deleted IS TRUE AS is_deleted
FROM fathom_transcripts AS said
WHERE recording_id = :recording_id
ORDER BY position
FOR UPDATE;

-- name: upsert_segments(recording_id, positions, speakers, emails, starts, ends, texts, edits, deletions)!
-- Adds the segments, or corrects those that differ.
INSERT INTO fathom_transcripts AS segments
    (recording_id, position, speaker_name, speaker_email, start_seconds, end_seconds, text,
     edited_text, is_deleted)
SELECT :recording_id, position, speaker, email, start_seconds, end_seconds, text, edited_text,
       is_deleted
FROM unnest(:positions::integer[], :speakers::text[], :emails::text[],
            :starts::double precision[], :ends::double precision[], :texts::text[],
            :edits::text[], :deletions::boolean[])
    AS batch (position, speaker, email, start_seconds, end_seconds, text, edited_text, is_deleted)
ON CONFLICT (recording_id, position) DO UPDATE SET
    speaker_name = excluded.speaker_name,
    speaker_email = excluded.speaker_email,
    start_seconds = excluded.start_seconds,
    end_seconds = excluded.end_seconds,
    text = excluded.text,
    edited_text = excluded.edited_text,
    is_deleted = excluded.is_deleted
WHERE (segments.speaker_name, segments.speaker_email, segments.start_seconds,
       segments.end_seconds, segments.text, segments.edited_text, segments.is_deleted)
    IS DISTINCT FROM
      (excluded.speaker_name, excluded.speaker_email, excluded.start_seconds,
       excluded.end_seconds, excluded.text, excluded.edited_text, excluded.is_deleted);

-- name: delete_later_segments(recording_id, positions)!
-- Deletes the segments that the recorder no longer has.
DELETE FROM fathom_transcripts
WHERE recording_id = :recording_id AND position NOT IN (SELECT unnest(:positions::integer[]));

-- name: keep_unmatched_edit(recording_id, position, text, edited_text, is_deleted)!
-- Keeps an edit whose words are not in the transcript any more.
INSERT INTO unmatched_edits (recording_id, position, text, edited_text, is_deleted)
VALUES (:recording_id, :position, :text, :edited_text, :is_deleted);

-- name: describe_call(recording_id, team, shared_with, language, awaits_transcript, recorded_at, content_hash, proposed_id, file, imported_by, tells_access)!
-- Keeps what the recorder says beside the words; a value that it does not give is kept.
INSERT INTO call_details AS details
    (recording_id, team, shared_with, language, awaits_transcript, recorded_at, content_hash,
     proposed_id, file, imported_by)
VALUES (:recording_id, :team, :shared_with::text[], :language, :awaits_transcript, :recorded_at,
        :content_hash, :proposed_id, :file, lower(:imported_by))
ON CONFLICT (recording_id) DO UPDATE SET
    team = CASE WHEN :tells_access THEN excluded.team ELSE coalesce(excluded.team, details.team) END,
    shared_with = excluded.shared_with,
    language = coalesce(excluded.language, details.language),
    awaits_transcript = excluded.awaits_transcript,
    recorded_at = coalesce(excluded.recorded_at, details.recorded_at),
    content_hash = coalesce(excluded.content_hash, details.content_hash),
    proposed_id = coalesce(excluded.proposed_id, details.proposed_id),
    file = coalesce(excluded.file, details.file),
    imported_by = coalesce(details.imported_by, excluded.imported_by)
WHERE (details.team, details.shared_with, details.language, details.awaits_transcript,
       details.recorded_at, details.content_hash, details.proposed_id, details.file,
       details.imported_by)
    IS DISTINCT FROM
      (CASE WHEN :tells_access THEN excluded.team ELSE coalesce(excluded.team, details.team) END,
       excluded.shared_with,
       coalesce(excluded.language, details.language), excluded.awaits_transcript,
       coalesce(excluded.recorded_at, details.recorded_at),
       coalesce(excluded.content_hash, details.content_hash),
       coalesce(excluded.proposed_id, details.proposed_id), coalesce(excluded.file, details.file),
       coalesce(details.imported_by, excluded.imported_by));
