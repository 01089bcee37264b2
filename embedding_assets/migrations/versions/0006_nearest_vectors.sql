-- The statement of a search by vectors: one branch for each part of the vector index, and one for
-- each range of ids between and after the parts, as the planner knows a partial index only where
-- the statement names its range. First by the vectors' signs, then the best by whole vectors, which
-- are read last: a sort of the rows outside of any part would not fit into work_mem with them.
-- $1 is the question's vector, $2 recordings, $3 and $4 who must and must not speak in the chunk.
CREATE OR REPLACE FUNCTION nearest_vectors_statement(
    candidates integer, by_recording boolean DEFAULT false, by_speaker boolean DEFAULT false,
    by_absence boolean DEFAULT false)
RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    live record;
    part record;
    branches text[] := '{}';
    reached bigint := 0;
    last_id constant bigint := 9223372036854775807;
    picked integer;
    -- OFFSET 0: looked up for one vector after the other, only until there are enough.
    is_published constant text :=
        'EXISTS (SELECT FROM transcript_chunks AS chunks'
        ' WHERE chunks.content_hash = stored.content_hash'
        || CASE WHEN by_recording THEN ' AND chunks.recording_id = ANY($2)' ELSE '' END
        || CASE WHEN by_speaker THEN ' AND search_names(chunks.speakers) && $3' ELSE '' END
        || CASE WHEN by_absence THEN ' AND NOT search_names(chunks.speakers) && $4' ELSE '' END
        || ' OFFSET 0)';
    in_part constant text :=
        '(SELECT stored.id, stored.content_hash,'
        ' stored.signs::bit(%1$s) <~> binary_quantize($1)::bit(%1$s) AS differing'
        ' FROM chunk_embeddings AS stored'
        ' WHERE stored.model = %2$L AND stored.id >= %3$s AND stored.id < %4$s AND %6$s'
        ' ORDER BY differing LIMIT %5$s)';
    -- Rows are compared as rows: by the index on both columns, past what other models have here.
    outside constant text :=
        '(SELECT stored.id, stored.content_hash, stored.differing FROM ('
        ' SELECT id, content_hash, signs <~> binary_quantize($1) AS differing'
        ' FROM chunk_embeddings'
        ' WHERE (model, id) >= (%2$L, %3$s) AND (model, id) < (%2$L, %4$s)'
        ' ORDER BY differing OFFSET 0) AS stored'
        ' WHERE %6$s ORDER BY stored.differing LIMIT %5$s)';
BEGIN
    SELECT model, dimensions INTO live FROM embedding_models WHERE is_live;
    -- More vectors are compared whole where each has fewer signs; and where a filter leaves what is
    -- far from the question, of which signs tell less.
    picked := greatest(candidates, least(400, 150000 / live.dimensions))
        * CASE WHEN by_recording THEN 2 ELSE 1 END;
    FOR part IN
        SELECT from_id, to_id FROM vector_index_parts
        WHERE model = live.model AND state = 'sealed' ORDER BY from_id
    LOOP
        IF part.from_id > reached THEN
            branches := branches || format(outside, live.dimensions, live.model, reached,
                                           part.from_id, picked, is_published);
        END IF;
        branches := branches || format(in_part, live.dimensions, live.model, part.from_id,
                                       part.to_id, picked, is_published);
        reached := part.to_id;
    END LOOP;
    branches := branches || format(outside, live.dimensions, live.model, reached, last_id, picked,
                                   is_published);
    RETURN format(
        'SELECT near.content_hash, 1 - (near.embedding <=> $1) AS similarity FROM ('
        ' SELECT found.content_hash, whole.embedding'
        ' FROM (SELECT * FROM (%s) AS each ORDER BY differing LIMIT %s) AS found'
        ' CROSS JOIN LATERAL (SELECT embedding FROM chunk_embeddings AS stored'
        '  WHERE stored.id = found.id OFFSET 0) AS whole) AS near'
        ' ORDER BY near.embedding <=> $1 LIMIT %s',
        array_to_string(branches, ' UNION ALL '), picked, candidates);
END $$;
