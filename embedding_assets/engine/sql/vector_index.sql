-- name: parts()
-- All parts of the vector index, each model's in the order of their ids. `live` is how many vectors
-- each has now, as the last VACUUM or ANALYZE saw it, or its build.
SELECT parts.index_name, parts.model, parts.from_id, parts.to_id, parts.state, parts.rows,
       least(parts.rows, index.reltuples::bigint) AS live
FROM vector_index_parts AS parts
LEFT JOIN pg_class AS index ON index.oid = to_regclass(parts.index_name)
ORDER BY parts.model, parts.from_id, parts.to_id;

-- name: sealed_parts(model)
-- The ranges of ids that search reads through an index.
SELECT index_name, model, from_id, to_id, state, rows FROM vector_index_parts
WHERE model = :model AND state = 'sealed'
ORDER BY from_id;

-- name: models()
-- Every model that has vectors, or may get some.
SELECT model, dimensions FROM embedding_models ORDER BY created_at, model;

-- name: tail(model, sealed_until, limit)^
-- The oldest vectors that no part covers yet, up to a limit: how many, and where they end.
SELECT count(*) AS rows, coalesce(max(id) + 1, :sealed_until) AS to_id
FROM (
    SELECT id FROM chunk_embeddings
    -- Compared as rows, so that the index on (model, id) skips the vectors of other models.
    WHERE (model, id) >= (:model, :sealed_until) AND (model, id) < (:model, 9223372036854775807)
    ORDER BY model, id
    LIMIT :limit
) AS newest;

-- name: index_key(model)^
-- What a model's parts are graphs of, by which operators and with which options.
SELECT key.key, key.operators, key.options
FROM embedding_models AS models CROSS JOIN LATERAL vector_index_key(models.dimensions) AS key
WHERE models.model = :model;

-- name: begin_part(index_name, model, from_id, to_id)!
-- Says which part is built next; of each model one at a time.
INSERT INTO vector_index_parts (index_name, model, from_id, to_id, state)
VALUES (:index_name, :model, :from_id, :to_id, 'building')
ON CONFLICT DO NOTHING;

-- name: count_part(model, from_id, to_id)$
-- Vectors that a part covers; compared as rows, so that the index on (model, id) alone is read.
SELECT count(*) FROM chunk_embeddings
WHERE (model, id) >= (:model, :from_id) AND (model, id) < (:model, :to_id);

-- name: seal_part(index_name, rows)!
-- From now on search reads the part.
UPDATE vector_index_parts SET state = 'sealed', rows = :rows, sealed_at = now()
WHERE index_name = :index_name;

-- name: replace_parts(index_name)
-- From now on search no longer reads the parts that this one replaces.
UPDATE vector_index_parts AS replaced SET state = 'dropping'
FROM vector_index_parts AS built
WHERE built.index_name = :index_name AND replaced.index_name <> built.index_name
    AND replaced.model = built.model AND replaced.state = 'sealed'
    AND replaced.from_id >= built.from_id AND replaced.to_id <= built.to_id
RETURNING replaced.index_name;

-- name: retire_part(index_name)!
-- From now on search no longer reads a part without vectors.
UPDATE vector_index_parts SET state = 'dropping' WHERE index_name = :index_name AND state = 'sealed';

-- name: forget_part(index_name)!
-- Its index is gone.
DELETE FROM vector_index_parts WHERE index_name = :index_name AND state = 'dropping';

-- name: index_state(index_name)^
-- Whether an index of this name is there, whole, and being built at this moment.
SELECT index.indisvalid AS is_valid,
       EXISTS (SELECT FROM pg_stat_progress_create_index AS building
               WHERE building.index_relid = index.indexrelid) AS is_being_built,
       pg_relation_size(index.indexrelid) AS bytes
FROM pg_index AS index
WHERE index.indexrelid = to_regclass(:index_name);

-- name: build_progress(pid)^
-- The progress of the build that this server process is running.
SELECT phase, tuples_done, blocks_done, blocks_total FROM pg_stat_progress_create_index
WHERE pid = :pid;
