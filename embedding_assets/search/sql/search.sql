-- name: answer(question, query, mode, filters, limit, per_recording)
-- The hits of a search. In `marked` the words that matched stand between two characters of the private
-- use area, which are taken out of the text before, and spaces in place of what looks like a tag.
SELECT hit.*, chunk.*, ts_headline(
           live.language::regconfig, translate(hit.chunk_text, U&'<>\E000\E001', '  '),
           coalesce((SELECT string_agg(lexeme_query(word)::text, ' | ')::tsquery
                     FROM unnest(hit.matched_words) AS word), ''::tsquery),
           U&'StartSel=\E000, StopSel=\E001, HighlightAll=true') AS marked
FROM search_languages AS live
CROSS JOIN search_transcript_chunks(
    :question, :query::vector, :mode, :filters::jsonb, :limit, :per_recording) AS hit
LEFT JOIN LATERAL (
    SELECT first_position, turn_offsets, turn_positions, turn_seconds, turn_speakers
    FROM transcript_chunks AS published
    WHERE published.recording_id = hit.recording_id
      AND published.chunk_index = hit.chunk_index OFFSET 0
) AS chunk ON true
WHERE live.is_live
ORDER BY hit.score DESC, hit.recording_id, hit.chunk_index;

-- name: neighbours(recording_id, first, last)
-- The chunks of a recording from one place to another, both included.
SELECT chunk_index, chunk_text, speakers, start_seconds, first_position, repeated, turn_offsets,
       turn_positions, turn_seconds, turn_speakers
FROM transcript_chunks
WHERE recording_id = :recording_id AND chunk_index BETWEEN :first AND :last
ORDER BY chunk_index;

-- name: nearest_chunks(query, limit)
-- The published chunks whose vectors are nearest, whatever their words.
SELECT chunks.recording_id, chunks.chunk_index, near.similarity
FROM nearest_chunk_vectors(:query::vector, :limit) AS near
CROSS JOIN LATERAL (
    SELECT * FROM transcript_chunks AS published
    WHERE published.content_hash = near.content_hash OFFSET 0
) AS chunks
ORDER BY near.similarity DESC, chunks.recording_id, chunks.chunk_index
LIMIT :limit;
