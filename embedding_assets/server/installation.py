"""Makes this machine ready: folders, embedded server, databases, schema, Dagster's home, `.env`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.migrations import migrate
from embedding_assets.server.connections import (
    APPLICATION_DATABASE,
    DAGSTER_DATABASE,
    application_url,
    dagster_url,
    embedded_server,
)
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import (
    BLOCK,
    BLOCK_END,
    BLOCK_START,
    ENV_FILE,
    PROJECT_ROOT,
    Settings,
)


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` found and did."""

    home: Path
    embedded: bool
    started: bool
    migrated: bool
    env_written: bool


def install(settings: Settings) -> Installed:
    """Brings everything to where a run can start; run again, it changes nothing.

    Raises:
        ConfigurationError: pgvector or a grant is missing, or a file cannot be written.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    server = embedded_server(settings)
    started = False
    if server is not None:
        started = server.ensure_running()
        server.ensure_database(APPLICATION_DATABASE)
    _ensure_dagster_database(settings)
    migrated = migrate(application_url(settings))
    _link_dagster_yaml(dagster_home(settings), settings.dagster_yaml)
    return Installed(
        home=settings.home,
        embedded=server is not None,
        started=started,
        migrated=migrated,
        env_written=_write_env(settings),
    )


def dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME: where Dagster finds its configuration and writes its logs."""
    return settings.home / "dagster"


def dagster_environment(settings: Settings) -> dict[str, str]:
    """The environment in which Dagster works on this home, whatever `.env` says."""
    return {
        **os.environ,
        "EMBEDDING_ASSETS_HOME": str(settings.home),
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_PG_URL": dagster_url(settings),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def _ensure_dagster_database(settings: Settings) -> None:
    url = make_url(dagster_url(settings)).set(drivername="postgresql")
    try:
        psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=10).close()
    except psycopg.OperationalError as missing:
        if settings.dagster_pg_url is not None:
            raise TransientError(
                "cannot connect to the database of DAGSTER_PG_URL; is its server running, and"
                " does the database exist?"
            ) from None
        _create_database(application_url(settings), url.database or DAGSTER_DATABASE, missing)


def _create_database(beside: str, name: str, missing: psycopg.OperationalError) -> None:
    try:
        with psycopg.connect(beside, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        return
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigurationError(
            f"Dagster's database {name!r} is missing and this role may not create it: create it,"
            " or set DAGSTER_PG_URL to one that exists"
        ) from None
    except psycopg.OperationalError:
        raise TransientError(
            "cannot connect to Postgres"
            f" ({' '.join(str(missing).split())}); is the server of DATABASE_URL running?"
        ) from None


def _link_dagster_yaml(home: Path, dagster_yaml: Path) -> None:
    """Puts the instance configuration in force, by a link, so that there is only one."""
    home.mkdir(parents=True, exist_ok=True)
    link, target = home / "dagster.yaml", (PROJECT_ROOT / dagster_yaml.expanduser()).resolve()
    if not target.is_file():
        raise ConfigurationError(f"DAGSTER_YAML names {target}, which is no file")
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = home / f".dagster.yaml.{os.getpid()}"
    fresh.symlink_to(target)
    fresh.replace(link)


def _write_env(settings: Settings) -> bool:
    """Writes this project's block of `.env`, so that plain `dagster` commands need no exports.

    Not where these are exported already, as in a container, whose files are read-only.
    """
    exported = os.environ.get("DAGSTER_HOME", ""), os.environ.get("DAGSTER_PG_URL", "")
    if exported == (str(dagster_home(settings)), dagster_url(settings)):
        return False
    before = ENV_FILE.read_text(encoding="utf-8") if ENV_FILE.exists() else ""
    own = BLOCK.sub("", before)
    after = _env_block(settings) + own
    if after == before:
        return False
    fresh = ENV_FILE.with_name(f".env.{os.getpid()}")
    fresh.touch(mode=0o600)  # it may hold keys
    fresh.write_text(after, encoding="utf-8")
    fresh.replace(ENV_FILE)
    return True


def _env_block(settings: Settings) -> str:
    """The block for the default home; an exported EMBEDDING_ASSETS_HOME wins over it.

    The `dagster` commands let `.env` win over the environment, so its lines must give way.
    """
    home = Settings.model_fields["embedding_assets_home"].default
    lines = [f"EMBEDDING_ASSETS_HOME=${{EMBEDDING_ASSETS_HOME:-{home}}}"]
    lines.append("DAGSTER_HOME=${EMBEDDING_ASSETS_HOME}/dagster")
    if settings.dagster_pg_url is None:
        lines.append(f"DAGSTER_PG_URL={_dagster_url_line(settings, home)}")
    return "\n".join([BLOCK_START, *lines, BLOCK_END, ""])


def _dagster_url_line(settings: Settings, home: Path) -> str:
    if settings.database_url is not None:
        return dagster_url(settings)
    server = EmbeddedPostgres(home)
    if server.socket_dir == home / "socket" and re.fullmatch(r"[\w./-]+", str(home)):
        return (
            f"postgresql+psycopg2://postgres@/{DAGSTER_DATABASE}"
            "?host=${EMBEDDING_ASSETS_HOME}/socket&port=5432"
        )
    return f"postgresql+psycopg2{server.url(DAGSTER_DATABASE).removeprefix('postgresql')}"
