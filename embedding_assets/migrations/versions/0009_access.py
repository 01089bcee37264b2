"""Who may see which call, and search that holds to it."""

from pathlib import Path

from alembic import op

from embedding_assets.migrations.functions import as_before

revision = "0009"
down_revision = "0008"

_HERE = Path(__file__).parent

# Statement by statement, as each event has its own transition table.
FOLLOW = """
DO $$
DECLARE source text;
BEGIN
    FOREACH source IN ARRAY ARRAY['call_details', 'call_people', 'published_recordings'] LOOP
        EXECUTE format('CREATE TRIGGER readers_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS'
                       ' changed FOR EACH STATEMENT EXECUTE FUNCTION follow_readers()', source);
        EXECUTE format('CREATE TRIGGER readers_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS'
                       ' changed FOR EACH STATEMENT EXECUTE FUNCTION follow_readers()', source);
        EXECUTE format('CREATE TRIGGER readers_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS'
                       ' changed FOR EACH STATEMENT EXECUTE FUNCTION follow_readers()', source);
    END LOOP;
END $$;
"""

# Pinned to this schema, so that nobody's search path can put another table in place of ours. The
# search runs with its owner's rights from here on and narrows itself to what the caller may see:
# under a policy, Postgres would use no index on words for the caller. So only those may call it who
# could read the chunks.
PIN = """
DO $$
DECLARE
    path text;
    function regprocedure;
    caller regrole;
BEGIN
    SELECT format('%I, %s, pg_temp', current_schema(), extnamespace::regnamespace) INTO path
    FROM pg_extension WHERE extname = 'vector';
    FOR function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND proname IN (
            'follow_readers', 'follow_owners', 'is_limited', 'reader_identities',
            'readable_recordings', 'sees_all_calls')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s', function, path);
    END LOOP;
    ALTER FUNCTION search_transcript_chunks SECURITY DEFINER;
    REVOKE EXECUTE ON FUNCTION search_transcript_chunks FROM PUBLIC;
    REVOKE EXECUTE ON FUNCTION switch_access, derive_all_readers, derive_call_readers FROM PUBLIC;
    -- Whoever may make a trigger of one could hand it a table with a type and a cast of their own,
    -- whose code would run with the owner's rights. To fire one needs no right.
    REVOKE EXECUTE ON FUNCTION follow_readers, follow_owners, track_calls, track_transcripts
        FROM PUBLIC;
    IF to_regrole('embedding_search') IS NOT NULL THEN
        REVOKE ALL ON search_lexemes, chunk_words, people, call_people FROM embedding_search;
    END IF;
    FOR caller IN
        SELECT DISTINCT rights.grantee
        FROM pg_class AS chunks, aclexplode(chunks.relacl) AS rights
        WHERE chunks.oid = 'transcript_chunks'::regclass AND rights.privilege_type = 'SELECT'
          AND rights.grantee <> chunks.relowner AND rights.grantee <> 0
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION search_transcript_chunks TO %s', caller);
        -- They gave hashes and cosines of calls that the caller may not see.
        IF NOT has_table_privilege(caller, 'transcript_chunks', 'INSERT') THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION nearest_chunk_vectors, chunk_similarities'
                           ' FROM %s', caller);
        END IF;
    END LOOP;
END $$;
"""

# Only on a table of ours, as the others; on somebody else's by deploy/triggers.sql.
FOLLOW_OWNERS = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c
               JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'user_id'
               WHERE c.oid = to_regclass('fathom_calls') AND c.relkind = 'r'
                 AND pg_has_role(c.relowner, 'USAGE'))
    THEN
        CREATE TRIGGER embedding_assets_owners AFTER UPDATE ON fathom_calls
            REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION follow_owners();
    END IF;
END $$;
"""

UNDO = """
SELECT switch_access(false);
ALTER FUNCTION search_transcript_chunks SECURITY INVOKER;
GRANT EXECUTE ON FUNCTION search_transcript_chunks TO PUBLIC;
"""

FUNCTIONS = (
    "derive_all_readers()",
    "switch_access(boolean)",
    "guarded_tables()",
    "sees_all_calls()",
    "readable_recordings()",
    "reader_identities()",
    "is_limited()",
    "current_reader()",
    "calling_role()",
    "derive_call_readers(text[])",
    "is_external(boolean, text, text)",
)


def upgrade() -> None:
    """Creates the tables and functions; 0010 derives the readers of what is there."""
    op.execute((_HERE / "0009_access.sql").read_text(encoding="utf-8"))
    op.execute(FOLLOW)
    op.execute(FOLLOW_OWNERS)
    op.execute(PIN)


def downgrade() -> None:
    """Lets everybody who may search see everything again."""
    op.execute(UNDO)
    op.execute(as_before("0005_search_functions.sql", "wanted_recordings"))
    op.execute(as_before("0005_search_tables.sql", "add_search_language"))
    op.execute("DROP FUNCTION follow_readers() CASCADE")
    op.execute("DROP FUNCTION follow_owners() CASCADE")
    op.execute("GRANT EXECUTE ON FUNCTION track_calls, track_transcripts TO PUBLIC")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("ALTER TABLE call_details DROP COLUMN imported_by")
    op.execute("DROP TABLE call_readers, access_settings")
