-- What the parts of the vector index are graphs of, and how a search compares.
--
-- Of many dimensions the signs: they tell enough of what is near, in a sixteenth of the space. Of
-- few dimensions they do not: of 384, the ten nearest of 80,000 chunks to a person's question are
-- among the 400 best by signs in nine of ten cases, and in fewer the more chunks there are. Those
-- parts are graphs of the vectors in half precision, with more neighbours chosen with more care,
-- as a question is not one of the vectors that they connect.
CREATE FUNCTION vector_index_key(
    dimensions integer, OUT is_whole boolean, OUT key text, OUT operators text, OUT options text,
    OUT distance text)
LANGUAGE sql IMMUTABLE AS $$
    SELECT is_whole,
           CASE WHEN is_whole THEN format('embedding::halfvec(%s)', dimensions)
                ELSE format('signs::bit(%s)', dimensions) END,
           CASE WHEN is_whole THEN 'halfvec_cosine_ops' ELSE 'bit_hamming_ops' END,
           CASE WHEN is_whole THEN 'm = 16, ef_construction = 100'
                ELSE 'm = 12, ef_construction = 40' END,
           CASE WHEN is_whole
                THEN format('stored.embedding::halfvec(%1$s) <=> $1::halfvec(%1$s)', dimensions)
                ELSE format('stored.signs::bit(%1$s) <~> binary_quantize($1)::bit(%1$s)', dimensions)
                END
    FROM (SELECT dimensions < 1024 AS is_whole) AS chosen
$$;

-- The statement of a search by vectors: one branch for each part of the vector index, and one for
-- each range of ids between and after the parts, as the planner knows a partial index only where
-- the statement names its range. Outside of the parts, first by the vectors' signs, then the best by
-- whole vectors, which are read last: a sort of all the rows would not fit into work_mem with them.
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
    picked integer; -- by signs
    wanted integer; -- of a part
    -- OFFSET 0: looked up for one vector after the other, only until there are enough.
    is_published constant text :=
        'EXISTS (SELECT FROM transcript_chunks AS chunks'
        ' WHERE chunks.content_hash = stored.content_hash'
        || CASE WHEN by_recording THEN ' AND chunks.recording_id = ANY($2)' ELSE '' END
        || CASE WHEN by_speaker THEN ' AND search_names(chunks.speakers) && $3' ELSE '' END
        || CASE WHEN by_absence THEN ' AND NOT search_names(chunks.speakers) && $4' ELSE '' END
        || ' OFFSET 0)';
    in_part constant text :=
        '(SELECT stored.id, stored.content_hash, %1$s AS distance'
        ' FROM chunk_embeddings AS stored'
        ' WHERE stored.model = %2$L AND stored.id >= %3$s AND stored.id < %4$s AND %6$s'
        ' ORDER BY distance LIMIT %5$s)';
    -- Rows are compared as rows: by the index on both columns, past what other models have here.
    outside text :=
        '(SELECT stored.id, stored.content_hash, stored.distance FROM ('
        ' SELECT id, content_hash, signs <~> binary_quantize($1) AS distance'
        ' FROM chunk_embeddings'
        ' WHERE (model, id) >= (%1$L, %2$s) AND (model, id) < (%1$L, %3$s)'
        ' ORDER BY distance OFFSET 0) AS stored'
        ' WHERE %5$s ORDER BY stored.distance LIMIT %4$s)';
    compared constant text :=
        ' CROSS JOIN LATERAL (SELECT embedding FROM chunk_embeddings AS stored'
        ' WHERE stored.id = found.id OFFSET 0) AS whole';
BEGIN
    SELECT models.dimensions, models.model, key.is_whole, key.distance INTO live
    FROM embedding_models AS models CROSS JOIN LATERAL vector_index_key(models.dimensions) AS key
    WHERE models.is_live;
    -- More where a filter leaves what is far from the question, of which signs tell less.
    picked := greatest(candidates, 400)
        * CASE WHEN by_recording THEN 2 ELSE 1 END;
    wanted := CASE WHEN live.is_whole THEN candidates ELSE picked END;
    IF live.is_whole THEN -- so that all branches have distances of one kind
        outside := '(SELECT found.id, found.content_hash, whole.embedding <=> $1 AS distance FROM '
            || outside || ' AS found' || compared || ')';
    END IF;
    FOR part IN
        SELECT from_id, to_id FROM vector_index_parts
        WHERE model = live.model AND state = 'sealed' ORDER BY from_id
    LOOP
        IF part.from_id > reached THEN
            branches := branches || format(outside, live.model, reached, part.from_id, picked,
                                           is_published);
        END IF;
        branches := branches || format(in_part, live.distance, live.model, part.from_id,
                                       part.to_id, wanted, is_published);
        reached := part.to_id;
    END LOOP;
    branches := branches || format(outside, live.model, reached, last_id, picked, is_published);
    RETURN format(
        'SELECT near.content_hash, 1 - (near.embedding <=> $1) AS similarity FROM ('
        ' SELECT found.content_hash, whole.embedding'
        ' FROM (SELECT * FROM (%s) AS each ORDER BY distance LIMIT %s) AS found'
        || compared || ') AS near ORDER BY near.embedding <=> $1 LIMIT %s',
        array_to_string(branches, ' UNION ALL '), wanted, candidates);
END $$;

-- The live model's vectors that are nearest to a question's: hashes and cosines, nothing else.
-- Readers may not read the vectors; this function does it for them, with its owner's rights.
CREATE OR REPLACE FUNCTION nearest_chunk_vectors(
    question vector, candidates integer, wanted text[] DEFAULT NULL,
    said_by text[] DEFAULT NULL, not_said_by text[] DEFAULT NULL)
RETURNS TABLE (content_hash bytea, similarity double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    live record;
BEGIN
    SELECT model, dimensions INTO live FROM embedding_models WHERE is_live;
    IF live IS NULL THEN
        RETURN;
    END IF;
    IF vector_dims(question) <> live.dimensions THEN
        RAISE EXCEPTION 'the question''s vector has % dimensions, those of % have %',
            vector_dims(question), live.model, live.dimensions USING ERRCODE = '22023';
    END IF;
    -- Go on where what the graph gives is not published, or filtered out.
    PERFORM set_config('hnsw.ef_search', '400', true),
            set_config('hnsw.iterative_scan', 'relaxed_order', true);
    RETURN QUERY EXECUTE nearest_vectors_statement(
        candidates, wanted IS NOT NULL, said_by IS NOT NULL, not_said_by IS NOT NULL)
    USING question, wanted, said_by, not_said_by;
END $$;
