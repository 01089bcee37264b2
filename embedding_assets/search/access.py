"""Who sees which call, and whether search holds to it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from embedding_assets.engine.database import Connection, Database
from embedding_assets.search.statements import sql

SHOWN = 20
NOBODY = "*"
"""A reader who sees every call while access is off, and none while it is on."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """How readers are derived from what recorders say."""

    policy: str = "invitees"  # owner, invitees, team or everyone
    admits_externals: bool = False
    admins: tuple[str, ...] = ()  # addresses


@dataclass(frozen=True, slots=True)
class AccessState:
    """What is in force, and which roles it does not restrict."""

    is_on: bool
    policy: AccessPolicy
    trusted_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """A reader of a call, or a call of a reader, and why."""

    name: str
    why: str | None
    title: str | None = None
    recorded_at: datetime | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@contextlib.contextmanager
def reading(
    database: Database, reader: str | None, seconds: float | None = None
) -> Iterator[Connection]:
    """A transaction in which the reader's calls are found, whatever role connects.

    Args:
        database: the application's.
        reader: an address or a user's id, NOBODY, or None: the role of the connection decides.
        seconds: how long each statement may take; None: as long as the server lets it.
    """
    with database.transaction() as connection:
        if reader is not None:
            sql.set_reader(connection, reader=reader)
        if seconds is not None:
            sql.limit_statements(connection, milliseconds=str(int(seconds * 1000)))
        yield connection


def access_is_on(database: Database) -> bool:
    """Whether readers see their calls only."""
    with database.transaction() as connection:
        return bool(sql.access_is_on(connection))


def sees_all_calls(database: Database, reader: str | None) -> bool:
    """Whether nothing is hidden from this reader."""
    with reading(database, reader) as connection:
        return bool(sql.sees_all_calls(connection))


def turn_on(database: Database, policy: AccessPolicy) -> AccessState:
    """Derives the readers of every call by the policy, then lets everybody see only theirs.

    Both in one transaction: nobody sees calls by the policy before.

    Raises:
        ConfigurationError: the role does not own the tables.
    """

    def change(connection: Connection) -> None:
        sql.change_access(
            connection,
            policy=policy.policy,
            admits_externals=policy.admits_externals,
            admins=sorted({each.strip().lower() for each in policy.admins}),
        )
        sql.switch_access(connection, turn_on=True)  # locks the tables: nobody publishes meanwhile
        sql.derive_all_readers(connection)

    database.retrying(change)
    return access_state(database)


def turn_off(database: Database) -> AccessState:
    """Lets everybody who may search see every call.

    Raises:
        ConfigurationError: the role does not own the tables.
    """
    database.retrying(lambda connection: sql.switch_access(connection, turn_on=False))
    return access_state(database)


def access_state(database: Database) -> AccessState:
    """What is in force now."""

    def read(connection: Connection) -> AccessState:
        row = sql.access_settings(connection)
        policy = AccessPolicy(row.policy, row.admits_externals, tuple(row.admins))
        roles = tuple(each.role for each in sql.trusted_roles(connection))
        return AccessState(row.is_on, policy, roles)

    return database.retrying(read, snapshot=True)


def readers_of(database: Database, recording_id: str) -> list[Reason] | None:
    """Who sees a call, by name; None if there is no such call."""

    def read(connection: Connection) -> list[Reason] | None:
        rows = sql.readers_of(connection, recording_id=recording_id)
        found = [Reason(row.reader, row.why) for row in rows]
        is_there = found or sql.is_published(connection, recording_id=recording_id)
        return found if is_there else None

    return database.retrying(read, snapshot=True)


def calls_of(database: Database, reader: str) -> tuple[int, Sequence[Reason]]:
    """How many published calls a reader sees, and the newest of them with the reasons."""

    def read(connection: Connection) -> tuple[int, list[Reason]]:
        sql.set_reader(connection, reader=reader)
        rows = sql.readable_calls(connection, limit=SHOWN)
        newest = [Reason(row.recording_id, row.why, row.title, row.recorded_at) for row in rows]
        return sql.count_readable(connection), newest

    return database.retrying(read, snapshot=True)
