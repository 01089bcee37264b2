-- Tokens that were given to people and programs.

-- name: add_token(name, token_hash, reader, may_import)!
-- Gives one out.
INSERT INTO access_tokens (name, token_hash, reader, may_import)
VALUES (:name, :token_hash, lower(btrim(:reader)), :may_import);

-- name: tokens()
-- All that are worth something.
SELECT name, reader, may_import, created_at FROM access_tokens ORDER BY name;

-- name: revoke_token(name)<!
-- Makes one worth nothing from now on.
DELETE FROM access_tokens WHERE name = :name RETURNING name;

-- name: token_of(token_hash)^
-- The token with this hash.
SELECT name, reader, may_import FROM token_of(:token_hash);

-- name: has_tokens()$
-- Whether any was given out.
SELECT has_tokens();
