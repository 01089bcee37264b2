"""The application database's schema, as Alembic revisions, and the one call that applies them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from embedding_assets.engine.database import NO_WRITES, SCHEMA_SECONDS, require_compatible
from embedding_assets.engine.errors import ConfigurationError, TransientError

# The database may be shared with an application that has an `alembic_version` of its own.
VERSION_TABLE = "embedding_assets_version"

# Whoever asks for a table after a migration that waits for it would wait behind it: so it gives up
# soon, and tries again.
LOCK_SECONDS = 2.0
LOCK_PAUSE_SECONDS = 3.0
LOCK_PATIENCE_SECONDS = 600.0
_IN_USE = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_BUSY = (
    "a table is in use without a pause, by a long transaction or an index that is being built, so"
    " that the migration could not go on; nothing is half done. See who it is in pg_stat_activity,"
    " end it or wait, then run `embedding-assets init` again"
)

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

    Each revision is a transaction of its own: after an interruption the next call goes on where
    this one was. It may be called from many processes at once. A table that others use for long is
    waited for in short turns, so that nobody waits behind the migration.

    A revision's file says beside which code it works, `oldest_code`, the revision of the oldest;
    older code is given the time to notice. What can be done before, in short transactions while
    everything goes on, is its function `prepare(begin)`, which may be interrupted and run again.

    Raises:
        ConfigurationError: pgvector is missing, the role may not create what is needed, or the
            schema is of newer code, beside which this one must not work.
        TransientError: others used a table for longer than LOCK_PATIENCE_SECONDS.
    """
    engine = sa.create_engine(_sqlalchemy_url(database_url), poolclass=sa.NullPool)
    with _plain_errors():
        if _bars_older_code(engine, revision):
            time.sleep(SCHEMA_SECONDS)
        has_changed = False
        while (step := _next(engine, revision)) is not None:
            with contextlib.suppress(_OvertakenError):
                _patiently(partial(_take, engine, step))
                has_changed = True
    return has_changed


def _bars_older_code(engine: sa.Engine, target: str) -> bool:
    """Tells running code that must not go on beside the new schema; whether there may be any."""
    with _begin(engine) as connection:
        there = current_revision(connection) or ""
        oldest = max((_oldest_code(step) or "" for step in _steps(connection, target)), default="")
        before = _oldest_code_there(connection)
        if before is None or oldest <= min(before, there):
            return False
        _set_oldest_code(connection, oldest)
    return True


def _next(engine: sa.Engine, target: str) -> Script | None:
    with _begin(engine) as connection:
        return next(iter(_steps(connection, target)), None)


class _OvertakenError(Exception):
    """Another process took the step."""


@contextlib.contextmanager
def _begin_before(engine: sa.Engine, step: Script) -> Iterator[sa.Connection]:
    with _begin(engine) as connection:
        if current_revision(connection) != step.down_revision:
            raise _OvertakenError
        yield connection


def _take(engine: sa.Engine, step: Script) -> None:
    if hasattr(step.module, "prepare"):
        step.module.prepare(partial(_begin_before, engine, step))
    with _begin_before(engine, step) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, step.revision)
        oldest = _oldest_code(step)
        if oldest is not None:
            _set_oldest_code(connection, oldest)


def _patiently(work: Callable[[], None]) -> None:
    """Again and again, while somebody uses a table that it must have for itself."""
    started = time.monotonic()
    while True:
        try:
            return work()
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, _IN_USE):
                raise
            if time.monotonic() - started > LOCK_PATIENCE_SECONDS:
                raise TransientError(_BUSY) from None
        time.sleep(LOCK_PAUSE_SECONDS)


@contextlib.contextmanager
def _begin(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction for one process at a time, that waits LOCK_SECONDS for any table."""
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('embedding_assets'))"))
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        _ensure_pgvector(connection)
        yield connection


def _steps(connection: sa.Connection, target: str) -> list[Script]:
    """The revisions that are missing, oldest first."""
    there = current_revision(connection) or ""
    script = ScriptDirectory.from_config(_config())
    if there > (script.get_current_head() or ""):
        require_compatible(there, _oldest_code_there(connection))
    ours = script.iterate_revisions(target, "base")
    return [step for step in reversed(list(ours)) if step.revision > there]


def _oldest_code(step: Script) -> str | None:
    return getattr(step.module, "oldest_code", None)


def _oldest_code_there(connection: sa.Connection) -> str | None:
    """The oldest revision whose code may work on the schema; None before that was written down."""
    if connection.scalar(sa.select(sa.func.to_regclass(VERSION_TABLE))) is None:
        return None
    row = sa.text("SELECT to_jsonb(each) ->> 'oldest_code' FROM embedding_assets_version AS each")
    oldest: str | None = connection.scalar(row)
    return oldest


def _set_oldest_code(connection: sa.Connection, revision: str) -> None:
    connection.execute(
        sa.text("UPDATE embedding_assets_version SET oldest_code = :revision"),
        {"revision": revision},
    )


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Names the mend; what SQLAlchemy says would quote statements."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InternalError) as error:
        reason = " ".join(str(error.orig).split())
        raise TransientError(
            NO_WRITES.get(getattr(error.orig, "sqlstate", None) or "")
            or f"cannot connect to Postgres ({reason}); is the server of DATABASE_URL running?"
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
