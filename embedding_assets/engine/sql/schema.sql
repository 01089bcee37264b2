-- name: schema_revision()$
-- The revision the database is migrated to.
SELECT version_num FROM embedding_assets_version;
