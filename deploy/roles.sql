-- The roles of an installation on a Postgres that is not its own. See docs/existing-postgres.md.
--
-- Run it before `embedding-assets init`, connected to the application's database as a role that may
-- create roles and schemas and that owns fathom_calls and fathom_transcripts, where these are there
-- already (on Supabase: postgres). It may be run again.
--
--     psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f deploy/roles.sql
--
-- The roles have no passwords yet: \password embedding_owner, and so on.

DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['embedding_owner', 'embedding_worker', 'embedding_search',
                                'embedding_importer', 'embedding_dagster'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;
END $$;

-- Who is no superuser must be a member of a role to make a schema for it.
GRANT embedding_owner, embedding_dagster TO CURRENT_USER;

-- A schema of the project's own: on Supabase, what lies in `public` is served to the world.
CREATE SCHEMA IF NOT EXISTS embedding AUTHORIZATION embedding_owner;
GRANT USAGE ON SCHEMA embedding TO embedding_worker, embedding_search, embedding_importer;
ALTER ROLE embedding_owner SET search_path = embedding, public;
ALTER ROLE embedding_worker SET search_path = embedding, public;
ALTER ROLE embedding_search SET search_path = embedding, public;
ALTER ROLE embedding_importer SET search_path = embedding, public;

-- Dagster's storage: a schema beside it, in which Dagster makes its own tables.
CREATE SCHEMA IF NOT EXISTS dagster AUTHORIZATION embedding_dagster;
ALTER ROLE embedding_dagster SET search_path = dagster;

-- Migrations and index builds take as long as they take; an insert that takes long is cut in half.
ALTER ROLE embedding_owner SET statement_timeout = 0;
ALTER ROLE embedding_worker SET statement_timeout = '30s';
ALTER ROLE embedding_search SET statement_timeout = '10s';
ALTER ROLE embedding_importer SET statement_timeout = '30s';

-- pgvector stays where it is; elsewhere it comes into `extensions`, as on Supabase.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions;
DO $$
BEGIN
    EXECUTE format(
        'GRANT USAGE ON SCHEMA %s TO embedding_owner, embedding_worker, embedding_search,'
        ' embedding_importer',
        (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'vector'));
END $$;

-- The recorder's tables, if they are there already: read, never written, unless you let
-- embedding_importer do that (docs/existing-postgres.md). Where row-level security
-- is on, the policy is not optional: a worker that sees no calls takes them all for deleted.
DO $$
DECLARE source record;
BEGIN
    FOR source IN
        SELECT oid::regclass AS name, relrowsecurity AS has_policies
        FROM pg_class
        WHERE oid IN (to_regclass('public.fathom_calls'), to_regclass('public.fathom_transcripts'))
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO embedding_owner, embedding_worker', source.name);
        IF source.has_policies THEN
            EXECUTE format('DROP POLICY IF EXISTS embedding_assets_reads ON %s', source.name);
            EXECUTE format('CREATE POLICY embedding_assets_reads ON %s FOR SELECT'
                           ' TO embedding_owner, embedding_worker USING (true)', source.name);
        END IF;
    END LOOP;
END $$;

-- A policy that hides a call must not make it look deleted: the worker asks this function, which sees
-- with its owner's eyes. NULL: these are covered as well (FORCE), so that nobody can tell.
DO $$
BEGIN
    IF to_regclass('public.fathom_calls') IS NOT NULL THEN
        CREATE OR REPLACE FUNCTION embedding.call_exists(id text) RETURNS boolean
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
            SELECT CASE WHEN NOT pg_catalog.row_security_active('public.fathom_calls')
                THEN EXISTS (SELECT FROM public.fathom_calls WHERE recording_id::text = id) END
        $function$;
        REVOKE EXECUTE ON FUNCTION embedding.call_exists FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION embedding.call_exists TO embedding_owner, embedding_worker;
    END IF;
END $$;
