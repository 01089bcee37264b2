-- name: limit_transaction(timeout)!
-- The server ends this transaction after so long, whether or not anything is done in it.
SELECT set_config('transaction_timeout', :timeout, true);

-- name: withdraw_chunks(recording_id)!
-- Deletes the published chunks of one recording; the same transaction inserts the new ones.
WITH words AS (
    DELETE FROM chunk_words
    WHERE language IN (SELECT language FROM search_languages) AND recording_id = :recording_id
), recording AS (
    DELETE FROM published_recordings WHERE recording_id = :recording_id
)
DELETE FROM transcript_chunks WHERE recording_id = :recording_id;

-- name: store_words(recording_id)!
-- The words of the chunks that this transaction published, in every language that is kept.
INSERT INTO chunk_words (language, recording_id, chunk_index, words)
SELECT kept.language, chunks.recording_id, chunks.chunk_index,
       -- What looks like a tag would hide the words in it, and after some all that follow.
       to_tsvector(kept.language::regconfig, replace(replace(chunks.chunk_text, '<', ' '), '>', ' '))
FROM transcript_chunks AS chunks CROSS JOIN search_languages AS kept
WHERE chunks.recording_id = :recording_id;

-- name: describe_recording(recording_id, title, recorded_at, duration_seconds, url, source_platform, user_id, cut_as, speakers, chunks)!
-- What searches are narrowed by, and what a hit says of its call.
INSERT INTO published_recordings (recording_id, title, recorded_at, duration, url, source_platform,
                                  user_id, cut_as, speaker_names, chunk_count)
VALUES (:recording_id, :title, :recorded_at, :duration_seconds, :url, :source_platform, :user_id,
        :cut_as, search_names(:speakers::text[]), :chunks);

-- name: insert_chunks(recording_id, indexes, texts, hashes, token_counts, speakers, starts, ends, first_positions, last_positions, repeated, turns, call_title, call_recorded_at, user_id)!
-- The new chunks of one recording. Not by COPY, which Postgres refuses to a role that a policy
-- applies to. The speakers and turns of each chunk come as JSON, as they are not equally many.
INSERT INTO transcript_chunks (
    recording_id, chunk_index, chunk_text, content_hash, token_count, speakers, start_seconds,
    end_seconds, first_position, last_position, repeated, turn_offsets, turn_positions,
    turn_seconds, turn_speakers, call_title, call_recorded_at, user_id)
SELECT :recording_id, chunk_index, chunk_text, content_hash, token_count,
       ARRAY(SELECT jsonb_array_elements_text(chunk.speakers::jsonb)), start_seconds, end_seconds,
       first_position, last_position, repeated, turn.offsets, turn.positions, turn.seconds,
       turn.speakers, :call_title, :call_recorded_at, :user_id
FROM unnest(:indexes::integer[], :texts::text[], :hashes::bytea[], :token_counts::integer[],
            :speakers::text[], :starts::double precision[], :ends::double precision[],
            :first_positions::integer[], :last_positions::integer[], :repeated::integer[],
            :turns::text[])
    AS chunk (chunk_index, chunk_text, content_hash, token_count, speakers, start_seconds,
              end_seconds, first_position, last_position, repeated, turns)
CROSS JOIN LATERAL jsonb_to_record(turns::jsonb) AS turn (
    offsets integer[], positions integer[], seconds real[], speakers integer[]);

-- name: cut_otherwise(cut_as)
-- Published recordings whose chunks were cut with other sizes than these, or with unknown ones, or
-- by a version that did not note where turns begin.
SELECT recordings.recording_id, recordings.chunk_count, coalesce(queued.token_count, 0) AS token_count
FROM published_recordings AS recordings
LEFT JOIN embedding_queue AS queued USING (recording_id)
WHERE recordings.cut_as IS DISTINCT FROM :cut_as
   OR EXISTS (SELECT FROM transcript_chunks AS chunks
              WHERE chunks.recording_id = recordings.recording_id AND chunks.chunk_index = 0
                AND chunks.turn_offsets IS NULL)
ORDER BY recordings.recording_id;

-- name: yield_to_others()$
-- From here on this transaction gives up rather than wait for a lock. It holds the queue's row, which
-- a recorder that has locked its own table may want: with less than deadlock_timeout (1 s), it is
-- never the recorder whose statement Postgres ends.
SELECT set_config('lock_timeout', '500ms', true);
