-- Change tracking on the recorder's tables, where they belong to somebody else. Optional: see
-- docs/existing-postgres.md for what is missed without it.
--
-- Run it once, after `embedding-assets init`, as the owner of fathom_calls and fathom_transcripts:
--
--     psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f deploy/triggers.sql
--
-- The functions run with the rights of embedding_owner and do one thing, they queue the recordings
-- that were touched; whoever writes the tables needs no right on the queue.

CREATE OR REPLACE TRIGGER embedding_assets_insert AFTER INSERT ON public.fathom_calls
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_calls();
CREATE OR REPLACE TRIGGER embedding_assets_update AFTER UPDATE ON public.fathom_calls
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_calls();
CREATE OR REPLACE TRIGGER embedding_assets_delete AFTER DELETE ON public.fathom_calls
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_calls();

CREATE OR REPLACE TRIGGER embedding_assets_insert AFTER INSERT ON public.fathom_transcripts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_transcripts();
CREATE OR REPLACE TRIGGER embedding_assets_update AFTER UPDATE ON public.fathom_transcripts
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_transcripts();
CREATE OR REPLACE TRIGGER embedding_assets_delete AFTER DELETE ON public.fathom_transcripts
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.track_transcripts();

-- Who owns a call, for access (docs/access.md).
CREATE OR REPLACE TRIGGER embedding_assets_owners AFTER UPDATE ON public.fathom_calls
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION embedding.follow_owners();
