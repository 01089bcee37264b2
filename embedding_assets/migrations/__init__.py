"""The application database's schema, as Alembic revisions, and the one call that applies them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from embedding_assets.engine.errors import ConfigurationError, TransientError

# The database may be shared with an application that has an `alembic_version` of its own.
VERSION_TABLE = "embedding_assets_version"

_NO_PGVECTOR = (
    "this Postgres server has no pgvector (extension `vector`, 0.7 or newer): install it on the "
    "server, for instance the package postgresql-17-pgvector, or use a server that has it"
)
_MAY_NOT_CREATE = (
    "pgvector is on this server but not in this database, and this role may not create it: "
    "have an administrator run CREATE EXTENSION vector, then run `embedding-assets init` again"
)


def migrate(database_url: str, revision: str = "head") -> bool:
    """Brings the schema to the newest revision, or that one; True if that changed anything.

    Safe to call from many processes at once: a lock held by the transaction makes them queue.

    Raises:
        ConfigurationError: pgvector is missing, or the role may not create what is needed.
    """
    engine = sa.create_engine(_sqlalchemy_url(database_url), poolclass=sa.NullPool)
    with _plain_errors(), engine.begin() as connection:
        config = _config()
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('embedding_assets'))"))
        _ensure_pgvector(connection)
        before = current_revision(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        return before != current_revision(connection)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Names the mend; what SQLAlchemy says would quote statements."""
    try:
        yield
    except sa.exc.OperationalError as error:
        reason = " ".join(str(error.orig).split())
        raise TransientError(
            f"cannot connect to Postgres ({reason}); is the server of DATABASE_URL running?"
        ) from None
    except sa.exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise ConfigurationError(
            f"this role may not migrate the schema ({error.orig.diag.message_primary}): run"
            " `embedding-assets init` as a role that may create tables here"
        ) from None


def current_revision(connection: sa.Connection) -> str | None:
    """The revision that the database is at, None before the first."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def head_revision() -> str | None:
    """The newest revision this package brings."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _sqlalchemy_url(database_url: str) -> str:
    _, _, rest = database_url.partition("://")
    return f"postgresql+psycopg://{rest}"


def _ensure_pgvector(connection: sa.Connection) -> None:
    """Creates pgvector where allowed, and puts its schema on this transaction's search path."""
    installed = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    schema = connection.scalar(sa.text(installed))
    if schema is None:
        if not connection.scalar(
            sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
        ):
            raise ConfigurationError(_NO_PGVECTOR)
        try:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
        except sa.exc.ProgrammingError as error:
            raise ConfigurationError(_MAY_NOT_CREATE) from error
        schema = connection.scalar(sa.text(installed))
    if connection.scalar(sa.text("SELECT to_regtype('vector') IS NULL")):
        connection.execute(
            sa.text(
                "SELECT set_config('search_path',"
                " concat_ws(', ', nullif(current_setting('search_path'), ''),"
                " CAST(:schema AS text)), true)"
            ),
            {"schema": schema},
        )
