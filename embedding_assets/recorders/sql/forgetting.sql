-- What is known of calls and people is deleted, and does not come in again.

-- name: calls_before(before)
-- The calls of before a moment, by their date, or by when they came in.
SELECT recording_id::text AS recording_id FROM fathom_calls AS calls
WHERE coalesce((to_jsonb(calls) ->> 'recorded_at')::timestamptz,
               (to_jsonb(calls) ->> 'created_at')::timestamptz) < :before
ORDER BY 1;

-- name: calls_of_people(emails)
-- The calls that these addresses recorded, were invited to or spoke in.
SELECT DISTINCT recording_id FROM call_people WHERE email = ANY (:emails::text[])
UNION
SELECT recording_id::text FROM fathom_calls AS calls
WHERE lower(to_jsonb(calls) ->> 'recorded_by_email') = ANY (:emails::text[])
UNION
SELECT DISTINCT recording_id::text FROM fathom_transcripts AS said
WHERE lower(to_jsonb(said) ->> 'speaker_email') = ANY (:emails::text[])
ORDER BY 1;

-- name: addresses_of(email)
-- All addresses of the person with this one; itself if nobody has it.
SELECT unnest(all_addresses(ARRAY[lower(:email)])) AS email;

-- name: may_delete_calls()$
-- Whether this role may delete the recorder's rows.
SELECT has_table_privilege('fathom_calls', 'DELETE')
   AND has_table_privilege('fathom_transcripts', 'DELETE');

-- name: call_is_here(recording_id)$
-- Whether the recorder's table has the call.
SELECT EXISTS (SELECT FROM fathom_calls WHERE recording_id = :recording_id);

-- name: delete_segments(recording_id)!
-- Deletes what was said.
DELETE FROM fathom_transcripts WHERE recording_id = :recording_id;

-- name: delete_call(recording_id)!
-- Deletes the call.
DELETE FROM fathom_calls WHERE recording_id = :recording_id;

-- name: delete_details(recording_id)^
-- Deletes what recorders say beside it; gives how much that was.
WITH people_rows AS (DELETE FROM call_people WHERE recording_id = :recording_id RETURNING 1),
     edits AS (DELETE FROM unmatched_edits WHERE recording_id = :recording_id RETURNING 1),
     sightings AS (DELETE FROM fathom_sightings WHERE recording_id = :recording_id RETURNING 1),
     details AS (DELETE FROM call_details WHERE recording_id = :recording_id RETURNING 1)
SELECT (SELECT count(*) FROM people_rows) AS call_people,
       (SELECT count(*) FROM edits) AS unmatched_edits,
       (SELECT count(*) FROM sightings) AS fathom_sightings,
       (SELECT count(*) FROM details) AS call_details;

-- name: forget_orphaned_people()!
-- Deletes people who are in no call any more.
DELETE FROM people
WHERE NOT EXISTS (SELECT FROM call_people AS calls
                  WHERE calls.email = ANY (people.email || people.aliases));

-- name: take_no_more(recording_id)!
-- The call is not taken again, whoever brings it.
INSERT INTO forgotten_calls (recording_id, content_hash)
VALUES (:recording_id,
        (SELECT content_hash FROM call_details WHERE recording_id = :recording_id))
ON CONFLICT DO NOTHING;

-- name: is_forgotten(recording_id, content_hash)$
-- When the call was forgotten, by its id or by what was said in it; NULL if it was not.
SELECT min(forgotten_at) FROM forgotten_calls
WHERE recording_id = :recording_id OR content_hash = :content_hash;

-- name: forget_address(email_hash)!
-- What this address says or is named for is not taken again.
INSERT INTO forgotten_people (email_hash) VALUES (:email_hash) ON CONFLICT DO NOTHING;

-- name: forgotten_hashes(email_hashes)
-- Those of these addresses that were forgotten.
SELECT email_hash FROM forgotten_people WHERE email_hash = ANY (:email_hashes::bytea[]);

-- name: forget_words(recording_id, emails, names, instead)!
-- Puts something else in place of what these people said in a call, and of their names.
UPDATE fathom_transcripts SET text = :instead, edited_text = NULL, speaker_name = :instead,
    speaker_email = NULL
WHERE recording_id = :recording_id
  AND (lower(speaker_email) = ANY (:emails::text[]) OR speaker_name = ANY (:names::text[]));

-- name: names_in_call(recording_id, emails)
-- How these people are called in a call.
SELECT DISTINCT name FROM call_people
WHERE recording_id = :recording_id AND email = ANY (:emails::text[]) AND name IS NOT NULL;

-- name: forget_who_recorded(recording_id, emails)!
-- Takes these people out of the call's own row.
UPDATE fathom_calls AS calls SET recorded_by_name = NULL, recorded_by_email = NULL
WHERE recording_id = :recording_id AND lower(recorded_by_email) = ANY (:emails::text[]);

-- name: forget_owner(recording_id, emails)!
-- Takes these people out of the call's own row where they are its owner, by an address.
UPDATE fathom_calls AS calls SET user_id = NULL
WHERE recording_id = :recording_id AND lower(user_id) = ANY (:emails::text[]);

-- name: forget_in_call(recording_id, emails)!
-- Takes these people out of what is known of a call.
DELETE FROM call_people WHERE recording_id = :recording_id AND email = ANY (:emails::text[]);

-- name: forget_shares(emails)!
-- Takes these people out of those whom calls were shared with, and who imported them.
UPDATE call_details AS details
SET shared_with = ARRAY(SELECT name FROM unnest(shared_with) AS name
                        WHERE lower(name) <> ALL (:emails::text[])),
    imported_by = CASE WHEN imported_by <> ALL (:emails::text[]) THEN imported_by END
WHERE imported_by = ANY (:emails::text[])
   OR EXISTS (SELECT FROM unnest(shared_with) AS name WHERE lower(name) = ANY (:emails::text[]));

-- name: forget_edits(recording_id)!
-- Deletes edits of a call whose words are gone.
DELETE FROM unmatched_edits WHERE recording_id = :recording_id;

-- name: forget_people(emails)!
-- Deletes these people.
DELETE FROM people WHERE email = ANY (:emails::text[]) OR aliases && :emails::text[];

-- name: prove(request, counts, not_reached)$
-- Writes down what was forgotten; gives the number of the proof.
INSERT INTO forgettings (request, counts, not_reached)
VALUES (:request::jsonb, :counts::jsonb, :not_reached::text[])
RETURNING id;
