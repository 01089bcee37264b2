"""Search by words and meaning: published recordings, the words of their chunks, functions."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

FOLDER = Path(__file__).parent

# The words of `english` are those that the column fts held, so that nothing is parsed again.
CARRY_OVER = """
SELECT add_search_language('english');

INSERT INTO chunk_words (language, recording_id, chunk_index, words)
SELECT 'english', recording_id, chunk_index, fts FROM transcript_chunks
ORDER BY recording_id, chunk_index;

-- A call without a date of its own showed the day of its import.
INSERT INTO published_recordings (recording_id, title, recorded_at, duration, url, source_platform,
                                  user_id, speaker_names, chunk_count)
SELECT chunks.recording_id, chunks.call_title,
       CASE WHEN call.row IS NULL THEN chunks.call_recorded_at
            WHEN call.row ? 'recorded_at' THEN (call.row ->> 'recorded_at')::timestamptz
            ELSE (call.row ->> 'created_at')::timestamptz END,
       CASE WHEN jsonb_typeof(call.row -> 'duration') = 'number'
            THEN (call.row ->> 'duration')::double precision END, call.row ->> 'url',
       call.row ->> 'source_platform', chunks.user_id, chunks.speaker_names, chunks.chunk_count
FROM (
    SELECT recording_id, min(call_title) AS call_title, min(call_recorded_at) AS call_recorded_at,
           min(user_id) AS user_id, max(indexed.chunk_count) AS chunk_count,
           search_names(array_agg(DISTINCT speaker)) AS speaker_names
    FROM transcript_chunks
    JOIN (SELECT recording_id, count(*) AS chunk_count FROM transcript_chunks GROUP BY 1) AS indexed
        USING (recording_id)
    LEFT JOIN LATERAL unnest(speakers) AS speaker ON true
    GROUP BY recording_id
) AS chunks
LEFT JOIN LATERAL (
    SELECT to_jsonb(calls) AS row FROM fathom_calls AS calls
    WHERE calls.recording_id::text = chunks.recording_id LIMIT 1
) AS call ON true;
"""

# Pinned to this schema, so that nobody's search path can put another table in place of ours; with
# pgvector's own beside it. A plan of this size gains nothing from being compiled.
PIN = """
DO $$
DECLARE
    path text;
    function regprocedure;
BEGIN
    SELECT format('%I, %s, pg_temp', current_schema(), extnamespace::regnamespace) INTO path
    FROM pg_extension WHERE extname = 'vector';
    FOR function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND proname IN (
            'nearest_chunk_vectors', 'chunk_similarities', 'search_transcript_chunks')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s', function, path);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', function);
    END LOOP;
END $$;
"""

# They read for their caller what it may not read itself: whoever searches is named by a grant.
REVOKE = """
REVOKE EXECUTE ON FUNCTION nearest_chunk_vectors, chunk_similarities FROM PUBLIC;
"""

FUNCTIONS = (
    "search_transcript_chunks(text, vector, text, jsonb, integer, integer)",
    "search_title_query(text)",
    "search_lower_texts(jsonb)",
    "search_texts(jsonb)",
    "wanted_recordings(jsonb)",
    "weigh_words(tsvector, search_languages, bigint)",
    "lexeme_weights(tsvector, search_languages)",
    "lexeme_query(text)",
    "parse_question(text, regconfig)",
    "chunk_similarities(vector, bytea[])",
    "nearest_chunk_vectors(vector, integer, text[], text[], text[])",
    "nearest_vectors_statement(integer, boolean, boolean, boolean)",
    "add_search_language(text)",
    "drop_search_language(text)",
)


def prepare(begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
    """Drops the vectors that 0004 copied."""
    with begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS chunk_embeddings_unsigned"))


def upgrade() -> None:
    """Creates what search reads, and fills it from what is published."""
    op.execute((FOLDER / "0005_search_tables.sql").read_text(encoding="utf-8"))
    op.execute((FOLDER / "0005_search_functions.sql").read_text(encoding="utf-8"))
    op.execute(PIN)
    op.execute(REVOKE)
    op.execute(CARRY_OVER)


def downgrade() -> None:
    """Puts the words back beside the text."""
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute(
        "ALTER TABLE transcript_chunks ADD COLUMN IF NOT EXISTS fts tsvector"
        " GENERATED ALWAYS AS (to_tsvector('english', chunk_text)) STORED"
    )
    op.execute("DROP TABLE search_lexemes, chunk_words, search_languages, published_recordings")
    op.execute("DROP FUNCTION search_names(text[])")
