"""What the vector index is built of: the vectors' signs, and parts that know their size."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# To add the column in place would rewrite the table, and nobody could read or write meanwhile. So a
# copy that has it is filled in the background, and takes the table's place.
COPY = """
CREATE TABLE IF NOT EXISTS chunk_embeddings_signed (
    LIKE chunk_embeddings INCLUDING ALL,
    signs bit varying NOT NULL GENERATED ALWAYS AS (binary_quantize(embedding)) STORED
);
-- A model's newest vectors, also while another model is being filled beside it.
CREATE INDEX IF NOT EXISTS chunk_embeddings_model_id ON chunk_embeddings_signed (model, id);
"""
# Ids are given to rows in the order in which they are copied: while nobody writes, none is missing
# below the last. What is deleted meanwhile stays in the copy, and the next sweep deletes it there.
FILL = """
-- What was deleted, and embedded again.
DELETE FROM chunk_embeddings_signed AS old USING (
    SELECT model, content_hash FROM chunk_embeddings
    WHERE id > (SELECT coalesce(max(id), 0) FROM chunk_embeddings_signed)
    ORDER BY id LIMIT 5000) AS batch
WHERE old.model = batch.model AND old.content_hash = batch.content_hash;
INSERT INTO chunk_embeddings_signed
    (id, model, content_hash, embedding, token_count, created_at) OVERRIDING SYSTEM VALUE
SELECT id, model, content_hash, embedding, token_count, created_at FROM chunk_embeddings
WHERE id > (SELECT coalesce(max(id), 0) FROM chunk_embeddings_signed)
ORDER BY id LIMIT 5000;
"""
IS_BEHIND = """
SELECT EXISTS (SELECT FROM chunk_embeddings
               WHERE id > (SELECT coalesce(max(id), 0) FROM chunk_embeddings_signed))
"""

REPLACE = """
SELECT setval(pg_get_serial_sequence('chunk_embeddings_signed', 'id'),
              last_value, is_called) FROM chunk_embeddings_id_seq;

-- The copy is granted to whom the table was.
DO $$
DECLARE granted record;
BEGIN
    FOR granted IN
        SELECT privilege_type AS privilege, '' AS columns, grantee, is_grantable
        FROM pg_class, aclexplode(relacl)
        WHERE oid = 'chunk_embeddings'::regclass AND grantee <> relowner
        UNION ALL
        SELECT privilege_type, format('(%I)', attname), grantee, is_grantable
        FROM pg_attribute, aclexplode(attacl) WHERE attrelid = 'chunk_embeddings'::regclass
    LOOP
        EXECUTE format('GRANT %s %s ON chunk_embeddings_signed TO %s %s', granted.privilege,
                       granted.columns,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC'
                            ELSE granted.grantee::regrole::text END,
                       CASE WHEN granted.is_grantable THEN 'WITH GRANT OPTION' END);
    END LOOP;
    EXECUTE (SELECT format('ALTER TABLE chunk_embeddings_signed OWNER TO %s', relowner::regrole)
             FROM pg_class WHERE oid = 'chunk_embeddings'::regclass);
END $$;

-- 0005 drops what was: to delete large files takes seconds.
ALTER TABLE chunk_embeddings RENAME TO chunk_embeddings_unsigned;
ALTER SEQUENCE chunk_embeddings_id_seq RENAME TO chunk_embeddings_unsigned_id_seq;
ALTER TABLE chunk_embeddings_signed RENAME TO chunk_embeddings;
ALTER SEQUENCE chunk_embeddings_signed_id_seq RENAME TO chunk_embeddings_id_seq;
-- And what belongs to them is named after them.
DO $$
DECLARE named record;
BEGIN
    FOR named IN
        SELECT conrelid::regclass AS relation, conname AS name, conname || '_unsigned' AS new_name
        FROM pg_constraint
        WHERE conrelid = 'chunk_embeddings_unsigned'::regclass AND contype IN ('p', 'u')
        UNION ALL
        SELECT conrelid::regclass, conname, replace(conname, '_signed_', '_') FROM pg_constraint
        WHERE conrelid = 'chunk_embeddings'::regclass
            AND starts_with(conname, 'chunk_embeddings_signed_')
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', named.relation, named.name,
                       named.new_name);
    END LOOP;
END $$;
"""

PARTS = """
ALTER TABLE vector_index_parts
    ADD COLUMN rows bigint CHECK (rows >= 0), -- when it was built
    ADD COLUMN sealed_at timestamptz,
    ADD CONSTRAINT a_sealed_part_says_what_it_holds CHECK (
        state = 'building' OR num_nulls(rows, sealed_at) = 0);
CREATE UNIQUE INDEX vector_index_parts_one_is_built ON vector_index_parts (model)
    WHERE state = 'building';
"""


def prepare(begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
    """Fills the copy; after an interruption, from where it came to. Writers wait for each batch."""
    with begin() as connection:
        connection.execute(sa.text(COPY))
    is_behind = True
    while is_behind:
        with begin() as connection:
            connection.execute(sa.text("LOCK TABLE chunk_embeddings IN SHARE MODE"))
            is_behind = _fill(connection)


def _fill(connection: sa.Connection) -> bool:
    """Copies a batch; whether there is more."""
    connection.execute(sa.text(FILL))
    return bool(connection.scalar(sa.text(IS_BEHIND)))


def upgrade() -> None:
    """Puts the copy in the table's place, and lets parts say what they are."""
    op.execute(COPY)
    op.execute("LOCK TABLE chunk_embeddings IN ACCESS EXCLUSIVE MODE")
    while _fill(op.get_bind()):
        pass
    op.execute(REPLACE)
    op.execute(PARTS)


def downgrade() -> None:
    """Drops the parts, too: their indexes are on the column that goes."""
    op.execute("DELETE FROM vector_index_parts")
    op.execute("DROP INDEX vector_index_parts_one_is_built")
    op.execute(
        "ALTER TABLE vector_index_parts DROP CONSTRAINT a_sealed_part_says_what_it_holds,"
        " DROP COLUMN rows, DROP COLUMN sealed_at"
    )
    op.execute("DROP INDEX chunk_embeddings_model_id")
    op.execute("ALTER TABLE chunk_embeddings DROP COLUMN signs")
