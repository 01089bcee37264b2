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

-- The chunks that answer a question best, with the caller's rights.
--
--   question       words, "phrases" that must be there, -words and -"phrases" that must not
--   query_vector   the question's vector by the live model; without it, words alone decide
--   mode           'hybrid', 'semantic' (needs the vector) or 'keyword'
--   filters        {"recordings": [], "speakers": [], "title": "", "from": "", "until": "",
--                   "platforms": [], "owners": [], "exclude": {the same without dates}}
--   max_hits       at most so many
--   per_recording  of one recording at first; more only where others do not fill the page
--
-- `similarity` is the cosine, `word_score` the weight of the words found; `score`, by which hits
-- are ordered, is 0.4 of one and 0.6 of the other, both scaled to 0..1 over the candidates.
CREATE OR REPLACE FUNCTION search_transcript_chunks(
    question text, query_vector vector DEFAULT NULL, mode text DEFAULT 'hybrid',
    filters jsonb DEFAULT '{}', max_hits integer DEFAULT 10, per_recording integer DEFAULT 3)
RETURNS TABLE (
    recording_id text, chunk_index integer, title text, recorded_at timestamptz, url text,
    source_platform text, speakers text[], start_seconds double precision,
    end_seconds double precision, chunk_text text, score double precision,
    similarity double precision, word_score double precision, matched_words text[])
LANGUAGE plpgsql STABLE AS $$
DECLARE
    few constant bigint := 5000; -- chunks that are compared all, whatever the question
    candidates constant integer := 100; -- of each side
    most_scored constant bigint := 6000; -- chunks with one of the rarest words: some 15 ms
    live search_languages;
    parsed record;
    weighed record;
    wanted record;
    said_by text[] := search_lower_texts(filters -> 'speakers');
    not_said_by text[] := search_lower_texts(filters -> 'exclude' -> 'speakers');
    narrowed text; -- condition on `words`, a row of chunk_words
    is_meant boolean;
    word_branch text;
    meaning_branch text;
BEGIN
    IF mode NOT IN ('hybrid', 'semantic', 'keyword') THEN
        RAISE EXCEPTION 'there is no mode %: hybrid, semantic or keyword', mode
            USING ERRCODE = '22023';
    ELSIF mode = 'semantic' AND query_vector IS NULL THEN
        RAISE EXCEPTION 'a semantic search needs the question''s vector' USING ERRCODE = '22023';
    END IF;
    SELECT * INTO live FROM search_languages AS each WHERE each.is_live;
    IF live IS NULL THEN
        RAISE EXCEPTION 'no language is live: run embedding-assets switch-language'
            USING ERRCODE = '55000';
    END IF;
    SELECT * INTO parsed FROM parse_question(question, live.language::regconfig);
    SELECT * INTO wanted FROM wanted_recordings(filters);
    SELECT * INTO weighed
    FROM weigh_words(parsed.words, live, least(greatest(2000, live.counted_chunks / 20), most_scored));
    is_meant := mode <> 'keyword' AND query_vector IS NOT NULL;

    -- $1 question's vector, $2 wanted, $3 said_by, $4 not_said_by, $5 required, $6 excluded
    narrowed := concat_ws(' AND ', 'w.language = ' || quote_literal(live.language),
        CASE WHEN wanted.ids IS NOT NULL THEN 'w.recording_id = ANY($2)' END,
        CASE WHEN said_by IS NOT NULL OR not_said_by IS NOT NULL THEN
            'EXISTS (SELECT FROM transcript_chunks AS c WHERE c.recording_id = w.recording_id'
            ' AND c.chunk_index = w.chunk_index'
            || CASE WHEN said_by IS NULL THEN '' ELSE ' AND search_names(c.speakers) && $3' END
            || CASE WHEN not_said_by IS NULL THEN ''
                    ELSE ' AND NOT search_names(c.speakers) && $4' END
            || ' OFFSET 0)' END,
        CASE WHEN parsed.required IS NOT NULL THEN
            format('w.words @@ %L::tsquery', parsed.required) END,
        CASE WHEN parsed.excluded IS NOT NULL THEN
            format('NOT w.words @@ %L::tsquery', parsed.excluded) END);

    word_branch := CASE
        WHEN mode = 'semantic' AND parsed.required IS NULL THEN
            'SELECT NULL::text AS recording_id, 0 AS chunk_index WHERE false'
        WHEN weighed.score IS NULL AND parsed.required IS NULL AND is_meant THEN
            'SELECT NULL::text AS recording_id, 0 AS chunk_index WHERE false'
        WHEN weighed.score IS NULL AND parsed.required IS NULL THEN format(
            -- Common words alone, which no index has: as they stand, in what is newest.
            'SELECT recent.recording_id, recent.chunk_index FROM ('
            ' SELECT w.recording_id, w.chunk_index FROM chunk_words AS w'
            ' WHERE %s ORDER BY w.id DESC LIMIT 20000) AS recent'
            ' JOIN transcript_chunks AS c USING (recording_id, chunk_index)'
            ' WHERE $10 <> '''' AND strpos(lower(c.chunk_text), $10) > 0 LIMIT %s',
            narrowed, candidates)
        ELSE format(
            'SELECT recording_id, chunk_index FROM ('
            ' SELECT w.recording_id, w.chunk_index, w.words FROM chunk_words AS w'
            ' WHERE %s%s LIMIT %s) AS found ORDER BY %s DESC, recording_id, chunk_index LIMIT %s',
            narrowed,
            CASE WHEN weighed.candidates IS NULL OR parsed.required IS NOT NULL THEN ''
                 ELSE format(' AND w.words @@ %L::tsquery',
                             CASE WHEN wanted.chunks <= few THEN weighed.everything
                                  ELSE weighed.candidates END) END,
            -- Where the counts are old, a word may be in more chunks than they say.
            greatest(20000, live.counted_chunks / 10),
            coalesce(CASE WHEN wanted.chunks <= few THEN weighed.score
                          ELSE weighed.candidate_score END, '0'), candidates)
        END;
    meaning_branch := CASE
        WHEN NOT is_meant OR parsed.required IS NOT NULL THEN
            'SELECT NULL::text AS recording_id, 0 AS chunk_index WHERE false'
        WHEN wanted.chunks <= few THEN format(
            'SELECT c.recording_id, c.chunk_index'
            ' FROM chunk_similarities($1, ARRAY(SELECT content_hash FROM transcript_chunks AS w'
            '  WHERE w.recording_id = ANY($2))) AS near'
            ' CROSS JOIN LATERAL (SELECT * FROM transcript_chunks AS each'
            '  WHERE each.content_hash = near.content_hash AND each.recording_id = ANY($2)'
            '  OFFSET 0) AS c'
            ' JOIN chunk_words AS w USING (recording_id, chunk_index)'
            ' WHERE %s ORDER BY near.similarity DESC LIMIT %s', narrowed, candidates)
        ELSE format(
            'SELECT c.recording_id, c.chunk_index'
            ' FROM nearest_chunk_vectors($1, %s, $2, $3, $4) AS near'
            -- OFFSET 0: looked up one by one, also before the table was ever analyzed.
            ' CROSS JOIN LATERAL (SELECT * FROM transcript_chunks AS each'
            '  WHERE each.content_hash = near.content_hash OFFSET 0) AS c'
            ' JOIN chunk_words AS w USING (recording_id, chunk_index)'
            ' WHERE %s ORDER BY near.similarity DESC LIMIT %s', candidates, narrowed, candidates)
        END;

    RETURN QUERY EXECUTE format($query$
        WITH found AS MATERIALIZED (
            (%1$s) UNION (%2$s)
        ), chunks AS MATERIALIZED (
            SELECT c.*, w.words
            FROM found CROSS JOIN LATERAL (
                SELECT * FROM transcript_chunks AS each
                WHERE each.recording_id = found.recording_id
                    AND each.chunk_index = found.chunk_index OFFSET 0) AS c
            CROSS JOIN LATERAL (
                SELECT each.words FROM chunk_words AS each
                WHERE each.language = %3$L AND each.recording_id = found.recording_id
                    AND each.chunk_index = found.chunk_index OFFSET 0) AS w
        ), scored AS (
            SELECT chunks.*, near.similarity, %4$s + %5$s AS word_score
            FROM chunks
            LEFT JOIN chunk_similarities($1, ARRAY(SELECT content_hash FROM chunks)) AS near
                ON %6$L::boolean AND near.content_hash = chunks.content_hash
        ), scaled AS (
            SELECT scored.*,
                %7$s * coalesce((scored.similarity - min(scored.similarity) OVER ())
                    / nullif(max(scored.similarity) OVER () - min(scored.similarity) OVER (), 0), 0)
                + %8$s * coalesce((scored.word_score - min(scored.word_score) OVER ())
                    / nullif(max(scored.word_score) OVER () - min(scored.word_score) OVER (), 0), 0)
                AS score
            FROM scored
        ), placed AS (
            SELECT scaled.*, row_number() OVER (
                PARTITION BY scaled.recording_id ORDER BY scaled.score DESC, scaled.chunk_index
            ) AS place
            FROM scaled
        )
        SELECT placed.recording_id, placed.chunk_index, coalesce(call.title, placed.call_title),
               call.recorded_at, call.url, call.source_platform, placed.speakers,
               placed.start_seconds, placed.end_seconds, placed.chunk_text, placed.score,
               placed.similarity, placed.word_score::double precision,
               ARRAY(SELECT asked.lexeme FROM unnest($7) AS asked
                     WHERE placed.words @@ lexeme_query(asked.lexeme))
        FROM (
            SELECT * FROM placed
            ORDER BY place > $9, score DESC, recording_id, chunk_index LIMIT $8
        ) AS placed
        -- OFFSET 0: looked up for each hit, whatever the number of recordings.
        LEFT JOIN LATERAL (
            SELECT * FROM published_recordings AS each
            WHERE each.recording_id = placed.recording_id OFFSET 0) AS call ON true
        ORDER BY placed.place > $9, placed.score DESC, placed.recording_id, placed.chunk_index
        $query$,
        word_branch, meaning_branch, live.language, coalesce(weighed.score, '0'),
        coalesce(weighed.pairs, '0'), is_meant,
        CASE WHEN NOT is_meant THEN 0 WHEN mode = 'semantic' THEN 1 ELSE 0.4 END,
        CASE WHEN mode = 'semantic' THEN 0 WHEN is_meant THEN 0.6 ELSE 1 END)
    USING query_vector, wanted.ids, said_by, not_said_by, parsed.required, parsed.excluded,
          parsed.words, max_hits, per_recording, lower(btrim(question, ' "?!.'));
END $$;
