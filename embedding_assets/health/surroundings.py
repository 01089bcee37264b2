"""What the system stands on: the disks, Dagster's storage, and the daemon that starts runs."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import DiskFullError, EmbeddingAssetsError
from embedding_assets.health.findings import Finding, Severity, at_least, iso
from embedding_assets.health.numbers import in_utc
from embedding_assets.health.statements import sql
from embedding_assets.server.connections import dagster_storage
from embedding_assets.settings import Settings

GIB = 2**30
ROOM_WARNING = 2.0  # GiB free on this machine
ROOM_CRITICAL = 0.5
# A daemon says every half minute that it is there; after half an hour Dagster's page, too, calls it
# dead.
SILENCE_WARNING = timedelta(minutes=5)
SILENCE_CRITICAL = timedelta(minutes=30)
OUTLIVED = timedelta(days=1)
# Of Dagster's daemons those without which nothing begins by itself.
DAEMONS = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR")


def surroundings(settings: Settings, database: Database | None) -> Iterator[Finding]:
    """The findings `disk` and `orchestration`.

    Args:
        settings: where the home is, and Dagster's storage.
        database: the application's; None: it cannot be reached.
    """
    yield disk(settings.home, None if database is None else _server_disk(database))
    yield orchestration(settings)


@dataclass(frozen=True, slots=True)
class ServerDisk:
    """What a client sees of the database server's disk."""

    problem: str | None
    database_bytes: int | None = None


def _server_disk(database: Database) -> ServerDisk | None:
    """None: it could not be asked."""
    try:
        with database.transaction(snapshot=True) as connection:
            sql.limit_statements(connection)
            size = int(sql.database_bytes(connection))
            sql.limit_memory(connection)
            sql.write_a_temporary_file(connection)
    except DiskFullError as error:
        return ServerDisk(str(error))
    except EmbeddingAssetsError:  # a limit of temporary files, for instance
        return None
    return ServerDisk(None, size)


def disk(home: Path, server: ServerDisk | None) -> Finding:
    """Whether there is room on this machine, and as far as a client can tell on the server."""
    free = _free(home)
    severity = Severity.HEALTHY
    message = "there is room where EMBEDDING_ASSETS_HOME is"
    if server is not None:
        message += ", and a little at least on the database server"
    if free is None:
        message = "nothing is known of the disk of EMBEDDING_ASSETS_HOME, which cannot be read"
    elif free < ROOM_WARNING:
        severity = Severity.CRITICAL if free < ROOM_CRITICAL else Severity.WARNING
        message = f"only {free:.1f} GiB are free where EMBEDDING_ASSETS_HOME is"
    if server is not None and server.problem is not None:
        severity, message = Severity.CRITICAL, server.problem
    return Finding(
        "disk",
        severity,
        message,
        None
        if severity is Severity.HEALTHY
        else "make room: old backups and logs first, then Dagster's history (KEEP_RUNS_DAYS), and"
        " embedding-assets forget --before",
        {
            "home_free_gib": None if free is None else round(free, 2),
            "database_bytes": None if server is None else server.database_bytes,
        },
    )


def _free(home: Path) -> float | None:
    """GiB; None: this user may not look."""
    try:
        return shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists())).free / GIB
    except OSError:
        return None


def orchestration(settings: Settings) -> Finding:
    """Whether Dagster's storage answers, and its daemon ticks."""
    try:
        with (
            dagster_storage(settings) as database,
            database.transaction(snapshot=True) as connection,
        ):
            return daemon_finding(_last_heard(connection), datetime.now(UTC))
    except EmbeddingAssetsError as error:
        if settings.dagster_pg_url is None:
            return Finding(
                "orchestration",
                Severity.HEALTHY,
                "nothing is known of Dagster here: DAGSTER_PG_URL is not set",
            )
        return Finding(
            "orchestration",
            Severity.CRITICAL,
            f"Dagster's storage does not answer, so no run begins: {error}",
            "start the server of DAGSTER_PG_URL, or mend DAGSTER_PG_URL",
        )


def _last_heard(connection: Connection) -> dict[str, datetime]:
    """When each of Dagster's daemons last said that it is there; empty before the first did."""
    sql.limit_statements(connection)
    if not sql.has_daemon_heartbeats(connection):
        return {}
    rows = sql.daemon_heartbeats(connection, daemons=list(DAEMONS))
    return {row.daemon: row.heard_at for row in rows}


def daemon_finding(heard: dict[str, datetime], now: datetime) -> Finding:
    """What it means when these daemons were last heard."""
    if not heard:
        return Finding(
            "orchestration",
            Severity.HEALTHY,
            "Dagster's storage answers; no daemon has run yet",
        )
    # A row stays for ever: of a daemon that the others have outlived by a day, nothing is expected.
    newest = max(heard.values())
    expected = {name: at for name, at in heard.items() if newest - at < OUTLIVED}
    daemon, since = min(expected.items(), key=lambda each: each[1])
    seconds = (now - since).total_seconds()
    severity = at_least(seconds, SILENCE_WARNING.total_seconds(), SILENCE_CRITICAL.total_seconds())
    is_healthy = severity is Severity.HEALTHY
    return Finding(
        "orchestration",
        severity,
        "Dagster's storage answers, and its daemon ticks"
        if is_healthy
        else f"Dagster's daemon ({daemon}) has not ticked since {in_utc(since)}: nothing begins by"
        " itself, and nobody is alerted",
        None
        if is_healthy
        else "start the daemon (dagster-daemon run, or embedding-assets dev) under a supervisor; if"
        " it runs, see its log",
        {"daemon_heard_at": iso(since)},
    )
