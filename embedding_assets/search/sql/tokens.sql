-- Tokens that were given to people and programs.

-- name: add_token(name, token_hash, reader, may_import)<!
-- Gives one out; the name of a revoked one may be given again. Nothing, if the name is taken.
INSERT INTO access_tokens AS known (name, token_hash, reader, may_import)
VALUES (:name, :token_hash, lower(btrim(:reader)), :may_import)
ON CONFLICT (name) DO UPDATE SET token_hash = excluded.token_hash, reader = excluded.reader,
    may_import = excluded.may_import, created_at = now(), revoked_at = NULL
WHERE known.revoked_at IS NOT NULL
RETURNING name;

-- name: tokens()
-- All that are worth something.
SELECT name, reader, may_import, created_at FROM access_tokens
WHERE revoked_at IS NULL ORDER BY name;

-- name: revoke_token(name)<!
-- Makes one worth nothing from now on.
UPDATE access_tokens SET revoked_at = now()
WHERE name = :name AND revoked_at IS NULL RETURNING name;

-- name: token_of(token_hash)^
-- The token with this hash.
SELECT name, reader, may_import FROM token_of(:token_hash);

-- name: has_tokens()$
-- Whether any was ever given out.
SELECT has_tokens();
