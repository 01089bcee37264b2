-- What search reads beside the chunks and the vectors.

-- One row for each published recording: what a search is narrowed by, and what a hit says of it.
CREATE TABLE published_recordings (
    recording_id text PRIMARY KEY CHECK (recording_id <> ''),
    title text,
    recorded_at timestamptz, -- NULL: unknown
    duration double precision, -- seconds
    url text,
    source_platform text,
    user_id text,
    speaker_names text[] NOT NULL DEFAULT '{}', -- in lower case, whole and word by word
    chunk_count integer NOT NULL CHECK (chunk_count >= 0),
    cut_as text -- CHUNK_TARGET_TOKENS/CHUNK_OVERLAP_TOKENS/CHUNK_MAX_TOKENS; NULL: not known
);
CREATE INDEX published_recordings_recorded_at ON published_recordings (recorded_at);
CREATE INDEX published_recordings_source_platform ON published_recordings (source_platform);
CREATE INDEX published_recordings_user_id ON published_recordings (user_id);
CREATE INDEX published_recordings_speaker_names ON published_recordings USING gin (speaker_names);
CREATE INDEX published_recordings_title ON published_recordings
    USING gin (to_tsvector('simple', coalesce(title, '')));

-- The languages that words are kept in: one is live, another may be filled beside it.
CREATE TABLE search_languages (
    language text PRIMARY KEY, -- the name of a text search configuration
    is_live boolean NOT NULL DEFAULT false,
    counted_chunks bigint NOT NULL DEFAULT 0 CHECK (counted_chunks >= 0),
    counted_until bigint NOT NULL DEFAULT 0, -- chunk_words.id
    mean_words double precision NOT NULL DEFAULT 0, -- different words in a chunk
    counted_at timestamptz NOT NULL DEFAULT now(),
    recounted_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX search_languages_one_is_live ON search_languages (is_live) WHERE is_live;

CREATE SEQUENCE chunk_words_id AS bigint;

-- The words of each published chunk. Apart from the chunks: a candidate's row is a third as long,
-- and another language is filled and indexed beside the live one, then the old one is dropped.
CREATE TABLE chunk_words (
    language text NOT NULL,
    recording_id text NOT NULL,
    chunk_index integer NOT NULL,
    id bigint NOT NULL DEFAULT nextval('chunk_words_id'),
    words tsvector NOT NULL,
    PRIMARY KEY (language, recording_id, chunk_index)
) PARTITION BY LIST (language);
ALTER SEQUENCE chunk_words_id OWNED BY chunk_words.id;
CREATE INDEX chunk_words_by_id ON chunk_words (id);

-- In how many chunks each word is, as counted last.
CREATE TABLE search_lexemes (
    language text NOT NULL REFERENCES search_languages ON DELETE CASCADE,
    lexeme text NOT NULL,
    chunks bigint NOT NULL CHECK (chunks >= 0),
    PRIMARY KEY (language, lexeme)
);

-- Makes room for a language's words: a partition with its index.
CREATE FUNCTION add_search_language(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM name::regconfig;
    INSERT INTO search_languages (language, is_live)
    SELECT name, NOT EXISTS (SELECT FROM search_languages WHERE is_live)
    ON CONFLICT DO NOTHING;
    IF to_regclass(format('%I', 'chunk_words_' || name)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF chunk_words FOR VALUES IN (%L)',
                       'chunk_words_' || name, name);
        -- Readers scan what is pending; 1 MB of it is some 400 chunks.
        EXECUTE format('CREATE INDEX %I ON %I USING gin (words) WITH (gin_pending_list_limit = 1024)',
                       'chunk_words_' || name || '_words', 'chunk_words_' || name);
    END IF;
END $$;

-- Takes a language's words away; not the live one's.
CREATE FUNCTION drop_search_language(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_languages WHERE language = name AND NOT is_live;
    IF FOUND THEN
        EXECUTE format('DROP TABLE IF EXISTS %I', 'chunk_words_' || name);
    END IF;
END $$;

-- Names as search compares them: in lower case, whole and word by word.
CREATE FUNCTION search_names(names text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(DISTINCT part), '{}')
    FROM (
        SELECT lower(name) AS part FROM unnest(names) AS name
        UNION ALL
        SELECT regexp_split_to_table(lower(name), '\s+') FROM unnest(names) AS name
    ) AS parts
    WHERE part <> ''
$$;
