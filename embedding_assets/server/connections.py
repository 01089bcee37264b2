"""Where the two databases are, as the settings say, and a connection to the application's."""

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, urlencode

from psycopg.conninfo import make_conninfo

from embedding_assets.engine.database import Database, connection_parameters, sql
from embedding_assets.engine.errors import EmbeddingAssetsError, TransientError
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings

APPLICATION_DATABASE = "embedding_assets"
DAGSTER_DATABASE = "dagster"


def embedded_server(settings: Settings) -> EmbeddedPostgres | None:
    """The embedded server, or None when DATABASE_URL names another."""
    return None if settings.database_url else EmbeddedPostgres(settings.home)


def application_url(settings: Settings) -> str:
    """The connection URL of the application's database, for psycopg and psql."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres(settings.home).url(APPLICATION_DATABASE)


def dagster_url(settings: Settings) -> str:
    """The SQLAlchemy URL of Dagster's storage: DAGSTER_PG_URL, or its database beside ours."""
    if settings.dagster_pg_url is not None:
        return settings.dagster_pg_url.get_secret_value()
    # Imported here: a fifth of a second, and only Dagster wants SQLAlchemy's URLs.
    from sqlalchemy.engine import make_url  # noqa: PLC0415

    connection_parameters(application_url(settings), "DATABASE_URL")
    beside = make_url(application_url(settings)).set(
        drivername="postgresql+psycopg2", database=DAGSTER_DATABASE
    )
    return beside.render_as_string(hide_password=False)


def dagster_storage(settings: Settings) -> Database:
    """A connection to the database of `dagster_url`, to look whether it is well."""
    if settings.dagster_pg_url is not None:
        url = _for_libpq(settings.dagster_pg_url.get_secret_value())
    else:
        parameters = connection_parameters(application_url(settings), "DATABASE_URL")
        url = make_conninfo(**{**parameters, "dbname": DAGSTER_DATABASE})
    return Database(url, setting="DAGSTER_PG_URL")


def _for_libpq(url: str) -> str:
    """A URL of SQLAlchemy, whose parameters may hold what libpq's must not: = and +."""
    plain, _, query = re.sub(r"^(\w+)\+\w+:", r"\1:", url).partition("?")
    return f"{plain}?{urlencode(parse_qsl(query), quote_via=quote)}" if query else plain


def require_storage(settings: Settings) -> None:
    """Holds that Dagster's storage is there and takes writes.

    Raises:
        TransientError: it does not, and the text says why.
    """
    try:
        with dagster_storage(settings) as database, database.transaction() as connection:
            takes_writes = not sql.is_read_only(connection)
    except EmbeddingAssetsError as error:
        raise TransientError(f"Dagster's storage does not answer: {error}") from None
    if not takes_writes:
        raise TransientError(
            "Dagster's storage takes no writes: DAGSTER_PG_URL leads to a standby, or its"
            " default_transaction_read_only is on"
        )


def source_url(settings: Settings) -> str:
    """The connection URL of whoever writes the recorders' tables."""
    url = settings.source_database_url
    return application_url(settings) if url is None else url.get_secret_value()


def owner_url(settings: Settings) -> str:
    """The connection URL of the role that owns this project's tables, past any pooler."""
    url = settings.index_database_url
    return application_url(settings) if url is None else url.get_secret_value()


@contextlib.contextmanager
def open_owner_database(settings: Settings) -> Iterator[Database]:
    """A connection of the role that owns this project's tables, otherwise as `open_database`.

    Raises:
        ConfigurationError: the schema is missing or old.
    """
    with open_database(settings), Database(owner_url(settings)) as database:
        yield database


@contextlib.contextmanager
def open_source_database(settings: Settings) -> Iterator[Database]:
    """A connection that may write the recorders' tables, otherwise as `open_database`.

    Raises:
        ConfigurationError: the schema is missing or old.
    """
    with open_database(settings), Database(source_url(settings)) as database:
        database.check_schema()
        yield database


@contextlib.contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """A connection to the application's database, with the embedded server started if need be.

    Raises:
        ConfigurationError: the schema is missing or old.
    """
    server = embedded_server(settings)
    if server is not None:
        server.ensure_running()
    with Database(application_url(settings)) as database:
        database.check_schema()
        yield database
