"""What serves search to people and agents: where turns begin, calls page by page, tokens."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"

_HERE = Path(__file__).parent

# No default and no check of old rows: the chunks are neither rewritten nor scanned.
# `embedding-assets rechunk` adds the turns of what is published already.
TURNS = """
ALTER TABLE transcript_chunks
    ADD COLUMN repeated integer, -- characters at the start that end the chunk before, too
    ADD COLUMN turn_offsets integer[], -- where in the text each turn begins
    ADD COLUMN turn_positions integer[], -- of its segment
    ADD COLUMN turn_seconds real[], -- when it was said
    ADD COLUMN turn_speakers integer[]; -- its speaker's place in speakers, from 1
ALTER TABLE transcript_chunks ADD CONSTRAINT transcript_chunks_turns CHECK (
    cardinality(turn_offsets) = cardinality(turn_positions)
    AND cardinality(turn_offsets) = cardinality(turn_seconds)
    AND cardinality(turn_offsets) = cardinality(turn_speakers)) NOT VALID;
ALTER TABLE embedding_attempts
    ADD COLUMN refusals integer NOT NULL DEFAULT 0 CHECK (refusals >= 0); -- among the requests
"""

UNDO = """
DROP FUNCTION newest_recordings(jsonb, timestamptz, text, integer);
DROP FUNCTION may_change_call(text, text);
DROP FUNCTION token_of(bytea);
DROP FUNCTION has_tokens();
DROP FUNCTION access_is_on();
DROP TABLE access_tokens;
DROP INDEX published_recordings_newest;
ALTER TABLE embedding_attempts DROP COLUMN refusals;
ALTER TABLE transcript_chunks DROP COLUMN repeated, DROP COLUMN turn_offsets,
    DROP COLUMN turn_positions, DROP COLUMN turn_seconds, DROP COLUMN turn_speakers;
"""


def upgrade() -> None:
    """Adds the columns, the table of tokens, and what pages of calls are read by."""
    op.execute(TURNS)
    op.execute((_HERE / "0011_serving.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drops them; tokens that were given out are worth nothing then."""
    op.execute(UNDO)
