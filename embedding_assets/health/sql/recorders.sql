-- name: fathom_keys()
-- How far each key's meetings were read, and what became of those it sees.
SELECT keys.key_name, keys.added_at, keys.walked_until, keys.walked_at, keys.read_at,
       keys.listed_at, keys.refused_since, keys.refusal, seen.*
FROM fathom_keys AS keys
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE sightings.missed = 0) AS there,
           count(*) FILTER (WHERE sightings.missed = 0 AND calls.recording_id IS NOT NULL) AS here,
           count(*) FILTER (WHERE sightings.missed = 0 AND calls.recording_id IS NOT NULL
                                AND details.awaits_transcript) AS waiting,
           count(*) FILTER (WHERE sightings.missed = 0 AND sightings.recording_id IS NULL)
               AS unreadable,
           count(*) FILTER (WHERE sightings.missed >= 2 AND sightings.gone_at IS NULL) AS missing,
           count(*) FILTER (WHERE sightings.gone_at IS NOT NULL) AS gone
    FROM fathom_sightings AS sightings
    LEFT JOIN fathom_calls AS calls ON calls.recording_id::text = sightings.recording_id
    LEFT JOIN call_details AS details ON details.recording_id = sightings.recording_id
    WHERE sightings.key_name = keys.key_name
      AND NOT EXISTS (SELECT FROM forgotten_calls AS forgotten
                      WHERE forgotten.recording_id = sightings.recording_id)
) AS seen
ORDER BY keys.key_name;
