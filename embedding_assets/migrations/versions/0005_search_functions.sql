-- Search, as SQL functions: what the command asks, and what applications may ask themselves.

-- The statement of a search by vectors: one branch for each part of the vector index, and one for
-- each range of ids between and after the parts, as the planner knows a partial index only where
-- the statement names its range. First by the vectors' signs, then the best by whole vectors.
-- $1 is the question's vector, $2 recordings, $3 and $4 who must and must not speak in the chunk.
CREATE FUNCTION nearest_vectors_statement(
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
        '(SELECT stored.content_hash, stored.embedding,'
        ' stored.signs::bit(%1$s) <~> binary_quantize($1)::bit(%1$s) AS differing'
        ' FROM chunk_embeddings AS stored'
        ' WHERE stored.model = %2$L AND stored.id >= %3$s AND stored.id < %4$s AND %6$s'
        ' ORDER BY differing LIMIT %5$s)';
    -- Rows are compared as rows: by the index on both columns, past what other models have here.
    outside constant text :=
        '(SELECT stored.content_hash, stored.embedding, stored.differing FROM ('
        ' SELECT content_hash, embedding, signs <~> binary_quantize($1) AS differing'
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
        ' SELECT content_hash, embedding FROM (%s) AS found ORDER BY differing LIMIT %s) AS near'
        ' ORDER BY near.embedding <=> $1 LIMIT %s',
        array_to_string(branches, ' UNION ALL '), picked, candidates);
END $$;

-- The live model's vectors that are nearest to a question's: hashes and cosines, nothing else.
-- Readers may not read the vectors; this function does it for them, with its owner's rights.
CREATE FUNCTION nearest_chunk_vectors(
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
    PERFORM set_config('hnsw.ef_search', '64', true),
            set_config('hnsw.iterative_scan', 'relaxed_order', true);
    RETURN QUERY EXECUTE nearest_vectors_statement(
        candidates, wanted IS NOT NULL, said_by IS NOT NULL, not_said_by IS NOT NULL)
    USING question, wanted, said_by, not_said_by;
END $$;

-- The cosines of these texts' vectors to the question's, compared whole.
CREATE FUNCTION chunk_similarities(question vector, hashes bytea[])
RETURNS TABLE (content_hash bytea, similarity double precision)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT stored.content_hash, 1 - (stored.embedding <=> question)
    FROM embedding_models AS live
    JOIN chunk_embeddings AS stored ON stored.model = live.model
    WHERE live.is_live AND stored.content_hash = ANY(hashes)
        AND vector_dims(stored.embedding) = vector_dims(question)
$$;

-- What a question asks for: words with their positions, phrases that must be there, and words and
-- phrases that must not.
CREATE FUNCTION parse_question(
    question text, language regconfig,
    OUT words tsvector, OUT required tsquery, OUT excluded tsquery)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found text[];
    term tsquery;
    rest text := question;
    quoted constant text := '(-?)"([^"]+)"';
    barred constant text := '(?<![^[:space:]])-([[:alpha:]][^[:space:]]*)';
BEGIN
    FOR found IN SELECT regexp_matches(question, quoted, 'g') LOOP
        term := phraseto_tsquery(language, found[2]);
        CONTINUE WHEN numnode(term) = 0; -- of common words alone
        IF found[1] = '-' THEN
            excluded := coalesce(excluded || term, term);
        ELSE
            required := coalesce(required && term, term);
        END IF;
    END LOOP;
    rest := regexp_replace(rest, '-"[^"]+"', ' ', 'g');
    FOR found IN SELECT regexp_matches(replace(rest, '"', ' '), barred, 'g') LOOP
        term := phraseto_tsquery(language, found[1]);
        CONTINUE WHEN numnode(term) = 0;
        excluded := coalesce(excluded || term, term);
    END LOOP;
    rest := regexp_replace(rest, barred, ' ', 'g');
    words := to_tsvector(language, left(rest, 10000));
END $$;

-- A lexeme as a tsquery of one word, whatever characters are in it.
CREATE FUNCTION lexeme_query(lexeme text) RETURNS tsquery LANGUAGE sql IMMUTABLE AS $$
    SELECT ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery
$$;

-- The question's words, with in how many chunks each is, and its IDF. A number is also looked for
-- as Postgres keeps it behind a hyphen: of `ERR-5012` the number is -5012.
CREATE FUNCTION lexeme_weights(words tsvector, live search_languages)
RETURNS TABLE (lexeme text, positions smallint[], chunks bigint, idf double precision)
LANGUAGE sql STABLE AS $$
    SELECT asked.lexeme, asked.positions, coalesce(known.chunks, 0),
           ln(1 + (greatest(live.counted_chunks - coalesce(known.chunks, 0), 0) + 0.5)
                  / (coalesce(known.chunks, 0) + 0.5))
    FROM (
        SELECT each.lexeme, each.positions FROM unnest(words) AS each
        UNION
        SELECT '-' || each.lexeme, each.positions FROM unnest(words) AS each
        WHERE each.lexeme ~ '^[0-9]+$'
    ) AS asked
    LEFT JOIN search_lexemes AS known
        ON known.language = live.language AND known.lexeme = asked.lexeme
    ORDER BY coalesce(known.chunks, 0), asked.lexeme
    LIMIT 32 -- the rarest: a question may be a whole page
$$;

-- What a question's words are worth, and where they are looked for.
--
-- `score` is an expression over `words`, a chunk's tsvector: the sum over the question's words of
-- IDF times the saturating term frequency of ts_rank (the sum of 1/i² over the occurrences), with
-- a mild pivoted length normalization (Singhal et al. 1996). `pairs` adds, for two neighbouring
-- words of the question that are within three positions of each other in the chunk, as much as one
-- word of their mean IDF (sequential dependence: Metzler and Croft 2005). `candidates` matches the
-- chunks worth scoring: those with one of the rarest words, until there are `budget` of them;
-- `candidate_score` is the score by these words alone, which picks those that are scored whole.
CREATE FUNCTION weigh_words(
    words tsvector, live search_languages, budget bigint,
    OUT score text, OUT pairs text, OUT candidates tsquery, OUT everything tsquery,
    OUT candidate_score text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    term record;
    seen bigint := 0;
    -- 16.449: ts_rank's default weight is 0.1, and it divides by pi²/6.
    of_sum constant text := format(
        '16.449 * (%%s) / (0.85 + 0.15 * length(words) / %s)',
        CASE WHEN live.mean_words > 0 THEN live.mean_words ELSE 85 END);
BEGIN
    SELECT string_agg(
               format('%s * ts_rank(words, %L::tsquery)', idf, lexeme_query(lexeme)::text), ' + '),
           string_agg(lexeme_query(lexeme)::text, ' | ')::tsquery
    INTO score, everything
    FROM lexeme_weights(words, live);
    IF score IS NULL THEN
        RETURN;
    END IF;
    score := format(of_sum, score);
    FOR term IN SELECT lexeme, chunks, idf FROM lexeme_weights(words, live) ORDER BY chunks, lexeme LOOP
        EXIT WHEN candidates IS NOT NULL AND seen + term.chunks > budget;
        candidates := coalesce(candidates || lexeme_query(term.lexeme),
                               lexeme_query(term.lexeme));
        candidate_score := concat_ws(' + ', candidate_score, format(
            '%s * ts_rank(words, %L::tsquery)', term.idf, lexeme_query(term.lexeme)::text));
        seen := seen + term.chunks;
    END LOOP;
    candidate_score := format(of_sum, candidate_score);
    WITH placed AS (
        SELECT lexeme, idf, position FROM lexeme_weights(words, live), unnest(positions) AS position
    ), followed AS (
        -- Each word with the one that follows it; a stop word may lie between.
        SELECT DISTINCT one.lexeme AS one, other.lexeme AS other, (one.idf + other.idf) / 2 AS idf
        FROM placed AS one JOIN placed AS other ON other.position = (
            SELECT min(position) FROM placed
            WHERE position > one.position AND position <= one.position + 2)
        WHERE one.lexeme <> other.lexeme
    )
    SELECT string_agg(
        format('%s * (words @@ %L::tsquery)::integer', idf, (
            SELECT string_agg(
                format('%1$s <%3$s> %2$s | %2$s <%3$s> %1$s', lexeme_query(one)::text,
                       lexeme_query(other)::text, distance), ' | ')
            FROM generate_series(1, 3) AS distance)), ' + ')
    INTO pairs
    FROM followed;
END $$;

-- The recordings that a search is narrowed to; NULL: to none in particular. See docs/search.md for
-- the keys of `filters`; one that is not known is an error, as it would otherwise narrow nothing.
CREATE FUNCTION wanted_recordings(filters jsonb, OUT ids text[], OUT chunks bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    known constant text[] := '{recordings,speakers,title,from,until,platforms,owners,exclude}';
    barred constant text[] := '{recordings,speakers,title,platforms,owners}';
    wrong text;
    excluded jsonb := coalesce(filters -> 'exclude', '{}');
BEGIN
    SELECT key INTO wrong FROM (
        SELECT key FROM jsonb_object_keys(filters) AS key WHERE key <> ALL(known)
        UNION ALL
        SELECT 'exclude.' || key FROM jsonb_object_keys(excluded) AS key WHERE key <> ALL(barred)
    ) AS unknown LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'there is no filter %', wrong USING ERRCODE = '22023';
    END IF;
    IF filters - 'exclude' = '{}' AND excluded = '{}' THEN
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT coalesce(array_agg(recording_id), ''{}''), coalesce(sum(chunk_count), 0)'
        ' FROM published_recordings WHERE %s',
        concat_ws(' AND ', 'true',
            CASE WHEN filters ? 'recordings' THEN 'recording_id = ANY($1)' END,
            CASE WHEN filters ? 'speakers' THEN 'speaker_names && $2' END,
            CASE WHEN filters ? 'title' THEN
                'to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($3)' END,
            CASE WHEN filters ? 'from' THEN 'recorded_at >= $4' END,
            CASE WHEN filters ? 'until' THEN 'recorded_at < $5' END,
            CASE WHEN filters ? 'platforms' THEN 'source_platform = ANY($6)' END,
            CASE WHEN filters ? 'owners' THEN 'user_id = ANY($7)' END,
            CASE WHEN excluded ? 'recordings' THEN 'recording_id <> ALL($8)' END,
            CASE WHEN excluded ? 'title' THEN
                'NOT to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($9)' END,
            CASE WHEN excluded ? 'platforms' THEN
                '(source_platform = ANY($10)) IS NOT TRUE' END,
            CASE WHEN excluded ? 'owners' THEN '(user_id = ANY($11)) IS NOT TRUE' END))
    INTO ids, chunks
    USING search_texts(filters -> 'recordings'), search_lower_texts(filters -> 'speakers'), filters ->> 'title',
          (filters ->> 'from')::timestamptz, (filters ->> 'until')::timestamptz,
          search_texts(filters -> 'platforms'), search_texts(filters -> 'owners'),
          search_texts(excluded -> 'recordings'), excluded ->> 'title', search_texts(excluded -> 'platforms'),
          search_texts(excluded -> 'owners');
END $$;

-- A JSON array's texts.
CREATE FUNCTION search_texts(list jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(each) FROM jsonb_array_elements_text(list) AS each
$$;

CREATE FUNCTION search_lower_texts(list jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(lower(each)) FROM jsonb_array_elements_text(list) AS each
$$;

-- Every word of a title filter, the last one perhaps not typed to its end.
CREATE FUNCTION search_title_query(title text) RETURNS tsquery LANGUAGE sql IMMUTABLE AS $$
    SELECT (string_agg(lexeme_query(lexeme)::text, ' & ') || ':*')::tsquery
    FROM unnest(to_tsvector('simple', title))
$$;

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
CREATE FUNCTION search_transcript_chunks(
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
        FROM placed LEFT JOIN published_recordings AS call USING (recording_id)
        ORDER BY placed.place > $9, placed.score DESC, placed.recording_id, placed.chunk_index
        LIMIT $8
        $query$,
        word_branch, meaning_branch, live.language, coalesce(weighed.score, '0'),
        coalesce(weighed.pairs, '0'), is_meant,
        CASE WHEN NOT is_meant THEN 0 WHEN mode = 'semantic' THEN 1 ELSE 0.4 END,
        CASE WHEN mode = 'semantic' THEN 0 WHEN is_meant THEN 0.6 ELSE 1 END)
    USING query_vector, wanted.ids, said_by, not_said_by, parsed.required, parsed.excluded,
          parsed.words, max_hits, per_recording, lower(btrim(question, ' "?!.'));
END $$;
