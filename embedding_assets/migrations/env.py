"""Alembic's entry: runs the revisions on the connection that `migrate` hands over."""

from alembic import context

from embedding_assets.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
