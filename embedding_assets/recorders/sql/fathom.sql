-- How far Fathom was read with each key, and which meetings each key sees.

-- name: begin_key(key_name)^
-- Adds a key that is new, and gives how far it was read.
INSERT INTO fathom_keys (key_name) VALUES (:key_name)
ON CONFLICT (key_name) DO UPDATE SET key_name = excluded.key_name
RETURNING walked_until, reread_until, reread_at, listing, listing_began_at, listed_until, listed_at;

-- name: keys_by_age(key_names)
-- The keys, those first that were read the longest ago.
SELECT name FROM unnest(:key_names::text[]) AS name
LEFT JOIN fathom_keys ON key_name = name
ORDER BY greatest(read_at, refused_since) NULLS FIRST, name;

-- name: oldest_waiting(key_name, since)$
-- When the oldest meeting was created whose transcript is to be asked for again.
SELECT min(sightings.created_at)
FROM fathom_sightings AS sightings
JOIN call_details AS details ON details.recording_id = sightings.recording_id
WHERE sightings.key_name = :key_name AND sightings.created_at >= :since
  AND details.awaits_transcript;

-- name: see_meetings(key_name, meeting_ids, recording_ids, unreadables, created)!
-- Notes that the key sees these meetings, and what they are here.
INSERT INTO fathom_sightings AS known
    (key_name, meeting_id, recording_id, unreadable, created_at, listing)
SELECT keys.key_name, seen.meeting_id, seen.recording_id, seen.unreadable, seen.created_at,
       keys.listing
FROM unnest(:meeting_ids::text[], :recording_ids::text[], :unreadables::text[],
            :created::timestamptz[])
    AS seen (meeting_id, recording_id, unreadable, created_at)
JOIN fathom_keys AS keys ON keys.key_name = :key_name
ORDER BY seen.meeting_id
ON CONFLICT (key_name, meeting_id) DO UPDATE SET
    recording_id = coalesce(excluded.recording_id, known.recording_id),
    unreadable = CASE WHEN known.recording_id IS NULL THEN excluded.unreadable END,
    created_at = excluded.created_at, listing = excluded.listing, missed = 0, gone_at = NULL;

-- name: list_meetings(key_name, meeting_ids)!
-- Notes that the listing saw these meetings, which are known.
UPDATE fathom_sightings AS known SET listing = keys.listing, missed = 0, gone_at = NULL
FROM fathom_keys AS keys
WHERE keys.key_name = :key_name AND known.key_name = keys.key_name
  AND known.meeting_id = ANY (:meeting_ids::text[]);

-- name: known_meetings(key_name, meeting_ids, waiting_since)
-- Those of the meetings that need not be asked for with their words: whose call is here and does not
-- wait for a transcript that may still come.
SELECT sightings.meeting_id
FROM fathom_sightings AS sightings
LEFT JOIN call_details AS details ON details.recording_id = sightings.recording_id
WHERE sightings.key_name = :key_name AND sightings.meeting_id = ANY (:meeting_ids::text[])
  AND (EXISTS (SELECT FROM fathom_calls AS calls
               WHERE calls.recording_id::text = sightings.recording_id)
       OR EXISTS (SELECT FROM forgotten_calls AS forgotten
                  WHERE forgotten.recording_id = sightings.recording_id))
  AND NOT (coalesce(details.awaits_transcript, false) AND sightings.created_at >= :waiting_since);

-- name: walked(key_name, until, at)!
-- All that was created before was read; so the key is not refused.
UPDATE fathom_keys SET walked_until = greatest(walked_until, :until::timestamptz),
    walked_at = greatest(walked_at, :at::timestamptz), refused_since = NULL, refusal = NULL
WHERE key_name = :key_name;

-- name: read_to_now(key_name, at)!
-- Everything new was read.
UPDATE fathom_keys SET read_at = greatest(read_at, :at::timestamptz) WHERE key_name = :key_name;

-- name: refused(key_name, reason, at)!
-- The key is refused; since when stays.
UPDATE fathom_keys SET refused_since = coalesce(refused_since, :at), refusal = :reason
WHERE key_name = :key_name;

-- name: reread(key_name, until)!
-- So far the last days were read again.
UPDATE fathom_keys SET reread_until = :until WHERE key_name = :key_name;

-- name: reread_ended(key_name, at)!
-- The last days were read again, all of them.
UPDATE fathom_keys SET reread_until = NULL, reread_at = :at WHERE key_name = :key_name;

-- name: begin_listing(key_name, at, since)!
-- A new listing, unless one is under way.
UPDATE fathom_keys
SET listing = listing + 1, listing_began_at = :at, listed_until = :since
WHERE key_name = :key_name AND listing_began_at IS NULL;

-- name: listed(key_name, listing, until)!
-- So far this listing came.
UPDATE fathom_keys SET listed_until = :until
WHERE key_name = :key_name AND listing = :listing AND listing_began_at IS NOT NULL;

-- name: end_listing(key_name, listing, since)!
-- The listing is complete: what it did not see of what was created since then was missed once more.
-- Nothing happens if another run ended it before.
WITH ended AS (
    UPDATE fathom_keys
    SET listed_at = listing_began_at, listing_began_at = NULL, listed_until = NULL
    WHERE key_name = :key_name AND listing = :listing AND listing_began_at IS NOT NULL
    RETURNING key_name, listing
)
UPDATE fathom_sightings AS sightings SET missed = least(sightings.missed + 1, 1000)
FROM ended
WHERE sightings.key_name = ended.key_name AND sightings.listing < ended.listing
  AND sightings.created_at >= :since;

-- name: missing_meetings(key_name)
-- Those that two complete listings in a row did not see, and that are not known to be gone.
SELECT meeting_id, created_at FROM fathom_sightings
WHERE key_name = :key_name AND missed >= 2 AND gone_at IS NULL
ORDER BY created_at;

-- name: sighted(key_name)$
-- How many meetings the key sees, those counted that are missing.
SELECT count(*) FROM fathom_sightings WHERE key_name = :key_name AND gone_at IS NULL;

-- name: gone(key_name, meeting_id, at)!
-- It is certain that the key sees this meeting no more.
UPDATE fathom_sightings SET gone_at = :at
WHERE key_name = :key_name AND meeting_id = :meeting_id AND missed >= 2;

-- name: gone_calls(key_names, limit)
-- Calls here that each key which saw them sees no more; none while a key never listed all it sees.
SELECT recording_id FROM fathom_sightings AS sightings
WHERE recording_id IS NOT NULL
  AND EXISTS (SELECT FROM fathom_calls AS calls
              WHERE calls.recording_id::text = sightings.recording_id)
  AND NOT EXISTS (SELECT FROM fathom_keys
                  WHERE key_name = ANY (:key_names::text[]) AND listed_at IS NULL
                    AND refused_since IS NULL)
GROUP BY recording_id
HAVING bool_and(gone_at IS NOT NULL)
ORDER BY recording_id
LIMIT :limit;

-- name: hold_sightings(recording_id)
-- What the keys know of a call, held until the end of the transaction.
SELECT gone_at FROM fathom_sightings WHERE recording_id = :recording_id FOR UPDATE;

-- name: forget_key(key_name)!
-- Forgets a key and what it saw. The calls stay: also those that it alone still saw, of which other
-- keys know that they are gone.
WITH told AS (
    DELETE FROM fathom_sightings AS others USING fathom_sightings AS own
    WHERE own.key_name = :key_name AND own.gone_at IS NULL AND others.key_name <> own.key_name
      AND others.recording_id = own.recording_id AND others.gone_at IS NOT NULL
)
DELETE FROM fathom_keys WHERE key_name = :key_name;

-- name: key_names()
-- The keys that were ever used.
SELECT key_name FROM fathom_keys ORDER BY key_name;
