-- name: withdraw_chunks(recording_id)!
-- Takes away what readers see of one recording; the same transaction puts the new chunks there.
DELETE FROM transcript_chunks WHERE recording_id = :recording_id;

-- name: copy_chunks()#
COPY transcript_chunks (
    recording_id, chunk_index, chunk_text, content_hash, token_count, speakers, start_seconds,
    end_seconds, first_position, last_position, call_title, call_recorded_at, user_id
) FROM STDIN (FORMAT BINARY);
