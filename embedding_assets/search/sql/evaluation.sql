-- name: right_chunks(recording_id, turns, seconds)
-- The chunks of a recording that touch one of these turns, or this second; all of them without.
SELECT recording_id, chunk_index FROM transcript_chunks
WHERE recording_id = :recording_id
    AND (:turns::jsonb = 'null' OR EXISTS (
        SELECT FROM jsonb_array_elements(nullif(:turns::jsonb, 'null')) AS turn
        WHERE first_position <= (turn ->> 1)::integer AND last_position >= (turn ->> 0)::integer))
    AND (:seconds::double precision IS NULL
         OR :seconds::double precision BETWEEN start_seconds AND end_seconds);
