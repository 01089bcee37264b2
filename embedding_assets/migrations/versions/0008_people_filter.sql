-- Filters by people: whoever recorded a call, was invited or spoke, by any of their addresses.

-- These addresses, and all others of the same people.
CREATE FUNCTION all_addresses(addresses text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(address) FROM (
        SELECT unnest(addresses) AS address
        UNION
        SELECT unnest(people.email || people.aliases) FROM people
        WHERE people.email = ANY (addresses) OR people.aliases && addresses
    ) AS each
$$;

-- The recordings that a search is narrowed to; NULL: to none in particular. See docs/search.md for
-- the keys of `filters`; one that is not known is an error, as it would otherwise narrow nothing.
CREATE OR REPLACE FUNCTION wanted_recordings(filters jsonb, OUT ids text[], OUT chunks bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    known constant text[] := '{recordings,speakers,people,title,from,until,platforms,owners,exclude}';
    barred constant text[] := '{recordings,speakers,people,title,platforms,owners}';
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
            CASE WHEN filters ? 'people' THEN
                'recording_id IN (SELECT c.recording_id FROM call_people AS c'
                ' WHERE c.email = ANY($12))' END,
            CASE WHEN filters ? 'title' THEN
                'to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($3)' END,
            CASE WHEN filters ? 'from' THEN 'recorded_at >= $4' END,
            CASE WHEN filters ? 'until' THEN 'recorded_at < $5' END,
            CASE WHEN filters ? 'platforms' THEN 'source_platform = ANY($6)' END,
            CASE WHEN filters ? 'owners' THEN 'user_id = ANY($7)' END,
            CASE WHEN excluded ? 'recordings' THEN 'recording_id <> ALL($8)' END,
            CASE WHEN excluded ? 'people' THEN
                'recording_id NOT IN (SELECT c.recording_id FROM call_people AS c'
                ' WHERE c.email = ANY($13))' END,
            CASE WHEN excluded ? 'title' THEN
                'NOT to_tsvector(''simple'', coalesce(title, '''')) @@ search_title_query($9)' END,
            CASE WHEN excluded ? 'platforms' THEN
                '(source_platform = ANY($10)) IS NOT TRUE' END,
            CASE WHEN excluded ? 'owners' THEN '(user_id = ANY($11)) IS NOT TRUE' END))
    INTO ids, chunks
    USING search_texts(filters -> 'recordings'), search_lower_texts(filters -> 'speakers'),
          filters ->> 'title',
          (filters ->> 'from')::timestamptz, (filters ->> 'until')::timestamptz,
          search_texts(filters -> 'platforms'), search_texts(filters -> 'owners'),
          search_texts(excluded -> 'recordings'), excluded ->> 'title',
          search_texts(excluded -> 'platforms'), search_texts(excluded -> 'owners'),
          CASE WHEN filters ? 'people' THEN
              all_addresses(search_lower_texts(filters -> 'people')) END,
          CASE WHEN excluded ? 'people' THEN
              all_addresses(search_lower_texts(excluded -> 'people')) END;
END $$;
