"""One connection to the application's database, its transactions, and what its errors mean."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import aiosql
import psycopg
import tenacity
from pgvector.psycopg.vector import register_vector_info
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import PipelineStatus
from psycopg.rows import namedtuple_row
from psycopg.types import TypeInfo
from psycopg.types.array import ListBinaryDumper

from embedding_assets.engine.errors import (
    ConfigurationError,
    DiskFullError,
    EmbeddingAssetsError,
    InvalidInputError,
    LockedError,
    StatementTimeoutError,
    TransientError,
)

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class Statements:
    """The named statements of a folder's SQL files, as functions of a connection and parameters.

    Each is parsed at its first use: all of them would take a tenth of a short command's time.
    """

    def __init__(self, folder: Path) -> None:
        self._texts: dict[str, str] = {}
        for file in folder.glob("*.sql"):
            _, *parts = re.split(r"(?m)^-- name: (\w+)", file.read_text(encoding="utf-8"))
            for name, rest in zip(parts[::2], parts[1::2], strict=True):
                self._texts[name] = f"-- name: {name}{rest}"

    def __getattr__(self, name: str) -> Any:
        try:
            text = self._texts[name]
        except KeyError:
            raise AttributeError(f"no SQL file has a statement {name}") from None
        statement = getattr(aiosql.from_str(text, "psycopg"), name)
        setattr(self, name, statement)
        return statement

    def __dir__(self) -> Iterable[str]:
        return self._texts


sql = Statements(Path(__file__).parent / "sql")
"""The named statements of `engine/sql`."""

SCHEMA_REVISION = "0016"
"""The migration whose tables the statements need; a test holds that it is the newest."""

SCHEMA_SECONDS = 30.0
"""So long after a migration began that this code must not work beside, what runs has noticed it."""

RETRIES_SECONDS = 60.0  # for how long a transaction is retried, for instance during a restart
LONGEST_STATEMENT = 5.0  # seconds
CANCEL_SECONDS = 2.0
LOCK_SECONDS = 2  # how long a statement waits for somebody else's lock; `retrying` waits again
# A process that is frozen in a transaction, or cut off, keeps its locks no longer than this.
IDLE_SECONDS = 20

# What libpq does where the network is gone without a word; the URL's own parameters win.
_CONNECTING = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
READING_SECONDS = 60  # the same for a snapshot, whose locks are in nobody's way but of ALTER TABLE
_LIMITS = (
    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL idle_in_transaction_session_timeout = "
)
_WRITING = f"{_LIMITS}'{IDLE_SECONDS}s'"
_SNAPSHOT = (
    f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; {_LIMITS}'{READING_SECONDS}s'"
)

_UNREACHABLE = "cannot connect to Postgres ({reason}); is the server of {setting} running?"
_NOT_MIGRATED = (
    "the database lacks this project's tables, or has older ones: run `embedding-assets init`"
)
_NEWER = (
    "the database is migrated, or being migrated, for newer code of embedding-assets (of schema"
    " {oldest}; this is of {known}), beside which this must not write: upgrade it here, and restart"
    " what runs"
)


class _State(NamedTuple):
    """SQLSTATEs, or first characters of them, that mean the same; see PostgreSQL's appendix A."""

    codes: tuple[str, ...]

    def has(self, sqlstate: str) -> bool:
        return sqlstate.startswith(self.codes)


_LATER = _State(("08", "40", "53", "55P03", "57P", "58", "25006", "25P03", "25P04"))
_UNCONFIGURED = _State(("28", "3D000", "3F000", "42501", "42P01", "42703", "42704", "42883"))
_REFUSED_DATA = _State(("22", "54"))


READ_ONLY = (
    "the database takes no writes: DATABASE_URL leads to a standby, or its"
    " default_transaction_read_only is on; name the primary there, or set that off"
)
_DISK_FULL = "53100"
NO_WRITES = {
    "25006": READ_ONLY,
    _DISK_FULL: "the disk of the database server is full: make room there; what is published stays,"
    " and the work goes on by itself",
}
"""By SQLSTATE, why the database writes nothing at present, and what helps."""


class Database:
    """A lazily opened connection for one thread, reopened when it breaks.

    It keeps no session state (no prepared statements, no SET outside of a transaction), so the URL
    may lead through a transaction-pooling proxy.
    """

    def __init__(
        self, url: str, *, application_name: str = "embedding-assets", setting: str = "DATABASE_URL"
    ) -> None:
        self._url = url
        self._setting = setting  # that names the database, for messages
        self._application_name = application_name
        self._connection: Connection | None = None
        self._is_cancelled = False
        self._vector_schema: str | None = None
        self._schema_checked: float | None = None  # time.monotonic(); None: nobody asked for it
        self.retries_seconds = RETRIES_SECONDS
        """For how long `retrying` tries; 0: once."""
        self.statement_seconds = LONGEST_STATEMENT
        """The server's statement_timeout for this role; without one, LONGEST_STATEMENT."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def another(self) -> "Database":
        """A connection of its own to the same database, for another thread."""
        other = Database(self._url, application_name=self._application_name, setting=self._setting)
        other._schema_checked = self._schema_checked
        other.retries_seconds = self.retries_seconds
        return other

    def close(self) -> None:
        """Closes the connection; the next use opens another."""
        self._is_cancelled = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cancel(self) -> None:
        """Ends the running statement, and begins no transaction any more; from any thread.

        The server may end a statement a moment later: it must not be another one. So nothing is
        done with this connection until it was closed.
        """
        self._is_cancelled = True
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_SECONDS)

    @contextlib.contextmanager
    def transaction(
        self, *, snapshot: bool = False, any_schema: bool = False
    ) -> Iterator[Connection]:
        """One transaction; with `snapshot` it is read-only, and all statements see the same state.

        After `check_schema`, the schema is looked at again in the first transaction after every
        SCHEMA_SECONDS: what works for hours notices a migration. Not with `any_schema`, by which a
        run that noticed one gives back what it holds.

        A statement waits LOCK_SECONDS for a lock, and the server ends the transaction if nothing
        was asked in it for IDLE_SECONDS, with `snapshot` for READING_SECONDS.

        Raises:
            EmbeddingAssetsError: of the kind that the database's error means.
            LockedError: somebody holds a lock; the text says who, as far as it is known.
            ConfigurationError: the database was migrated for newer code meanwhile.
        """
        with translated_errors():
            connection = self._open()
            try:
                with connection.transaction():
                    connection.execute(_SNAPSHOT if snapshot else _WRITING)
                    self._find_vector_type(connection)
                    if not any_schema and self._must_look_at_schema():
                        self._require_schema(connection)
                    yield connection
            except psycopg.errors.LockNotAvailable:
                raise LockedError(_who_locks(connection)) from None

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """The connection outside of any transaction, for statements that cannot run in one.

        Settings that the caller makes last as long as the connection. So the URL must not lead
        through a transaction-pooling proxy.
        """
        with translated_errors():
            connection = self._open()
            self._find_vector_type(connection, is_local=False)
            yield connection

    def retrying(
        self,
        work: Callable[[Connection], T],
        *,
        snapshot: bool = False,
        any_schema: bool = False,
    ) -> T:
        """Runs `work` in a transaction, and again for a minute while errors are transient.

        `work` must be idempotent: it runs again if the connection broke during its commit.
        """
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_delay(self.retries_seconds),
            reraise=True,
        ):
            with (
                attempt,
                self.transaction(snapshot=snapshot, any_schema=any_schema) as connection,
            ):
                return work(connection)
        raise AssertionError("unreachable: tenacity re-raises")  # pragma: no cover

    def check_schema(self) -> None:
        """Holds that this code may work on the schema, and from now on looks again (`transaction`).

        Raises:
            ConfigurationError: it is missing, older, or migrated for newer code alone.
        """
        with self.transaction(any_schema=True) as connection:
            self._require_schema(connection)

    def _must_look_at_schema(self) -> bool:
        checked = self._schema_checked
        return checked is not None and time.monotonic() - checked >= SCHEMA_SECONDS

    def _require_schema(self, connection: Connection) -> None:
        now = time.monotonic()
        try:
            found = sql.schema_revision(connection)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            found = None
        if found is None:
            raise ConfigurationError(_NOT_MIGRATED)
        require_compatible(found.version_num, found.oldest_code)
        self._schema_checked = now

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known without using it."""
        connection = self._connection
        # Postgres may end a connection in the middle of a pipeline, which then can never be left.
        return (
            connection is not None
            and not connection.broken
            and connection.pgconn.pipeline_status == PipelineStatus.OFF
        )

    def _open(self) -> Connection:
        if self._is_cancelled:
            raise TransientError("it was cancelled")
        if self._connection is not None and self.is_connected:
            return self._connection
        self.close()
        try:
            parameters = {**_CONNECTING, **connection_parameters(self._url, self._setting)}
            connection = psycopg.connect(
                **{**parameters, "application_name": self._application_name},
                autocommit=True,
                prepare_threshold=None,
                row_factory=namedtuple_row,
            )
        except psycopg.OperationalError as error:
            raise _connection_error(error, self._setting) from None
        # Sending arrays of vectors as text takes a millisecond of CPU a row; as binary 0.05 ms.
        connection.adapters.register_dumper(list, ListBinaryDumper)
        self._connection = connection
        found = sql.server(connection)
        self._vector_schema = found.vector_schema
        self.statement_seconds = found.statement_seconds or LONGEST_STATEMENT
        if found.vector is not None:
            # Not register_vector: that asks for four types, in twelve statements.
            vector = TypeInfo("vector", found.vector, found.vectors)
            register_vector_info(connection, vector)
        return connection

    def _find_vector_type(self, connection: Connection, *, is_local: bool = True) -> None:
        """Puts pgvector's schema on this transaction's search path, where it is not already."""
        if self._vector_schema is not None:
            connection.execute(
                "SELECT set_config('search_path',"
                " concat_ws(', ', nullif(current_setting('search_path'), ''), %s::text), %s)",
                [self._vector_schema, is_local],
            )


def connection_parameters(url: str, setting: str) -> dict[str, Any]:
    """What a URL, or a conninfo string, tells libpq.

    Raises:
        ConfigurationError: it is neither; `setting` is where it stands.
    """
    # Else the user would be taken for the host.
    has_raw_slash = re.match(r"\w+://[^/@?]*/[^?]*@", url) is not None
    with contextlib.suppress(psycopg.ProgrammingError):  # whose text quotes it, with the password
        if not has_raw_slash:
            return conninfo_to_dict(url)
    raise ConfigurationError(
        f"{setting} is not a URL of Postgres: postgresql://USER:PASSWORD@HOST/DATABASE, with %2F"
        " for a / in the password, and so on"
    )


def _who_locks(connection: Connection) -> str:
    """Whom a statement waited for in vain, as far as this role may see."""
    with connection.transaction():
        found = sql.strongest_lock(connection)
    if found is None:
        return "a row or a table was locked for too long by another transaction"
    since = "" if found.since is None else f" since {found.since:%Y-%m-%d %H:%M:%S}"
    return (
        f"{found.relation} is locked by process {found.pid} of the role {found.role}"
        f" ({found.program or 'no application_name'}), {found.mode}{since}: let it end, or end it"
        f" with SELECT pg_terminate_backend({found.pid})"
    )


def require_compatible(found: str, oldest_code: str | None) -> None:
    """Holds that this code may work on a schema of this revision.

    Args:
        found: the schema's revision.
        oldest_code: the oldest revision whose code may still work on it; None: unknown.

    Raises:
        ConfigurationError: the schema is behind, or is for newer code alone; the text says which.
    """
    oldest = oldest_code or found
    if oldest > SCHEMA_REVISION:
        raise ConfigurationError(_NEWER.format(oldest=oldest, known=SCHEMA_REVISION))
    if found < SCHEMA_REVISION:
        raise ConfigurationError(_NOT_MIGRATED)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turns psycopg's errors into this project's, by SQLSTATE and never by message.

    Texts hold the server's primary message only: its DETAIL quotes rows.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translated(error) from None


def _translated(error: psycopg.Error) -> EmbeddingAssetsError:
    state = error.sqlstate or ""
    said = f"{error.diag.message_primary or type(error).__name__} (SQLSTATE {state or 'none'})"
    if state == "57014":
        return StatementTimeoutError(f"the database ended a statement: {said}")
    if state in {"42P01", "42703", "42883", "3F000"}:
        return ConfigurationError(f"{_NOT_MIGRATED} ({said})")
    if _UNCONFIGURED.has(state):
        return ConfigurationError(f"the database refused: {said}; check DATABASE_URL and grants")
    is_unreadable = not state and isinstance(error, psycopg.DataError)  # Python cannot hold it
    if _REFUSED_DATA.has(state) or is_unreadable:
        # The server's message is left out: it may quote the value, which may be part of a call.
        return InvalidInputError(f"the database refused the data (SQLSTATE {state or 'none'})")
    is_lost = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if _LATER.has(state) or is_lost:
        kind = DiskFullError if state == _DISK_FULL else TransientError
        return kind(NO_WRITES.get(state, f"the database connection failed: {said}"))
    return EmbeddingAssetsError(f"the database failed: {said}")


def _connection_error(error: psycopg.OperationalError, setting: str) -> EmbeddingAssetsError:
    # Without a SQLSTATE (psycopg has none for a failed connect) the server's text is all there is;
    # it names host, role and database, never the password.
    reason = " ".join(str(error).split())
    if _UNCONFIGURED.has(error.sqlstate or ""):
        return ConfigurationError(_UNREACHABLE.format(reason=reason, setting=setting))
    return TransientError(_UNREACHABLE.format(reason=reason, setting=setting))
