"""The vector index, in parts: each covers a range of ids, is built once, and never grows.

Ids only grow, so new vectors lie in no part's range and cost no index anything; search reads them
one by one until there are enough for a part. Small neighbours are merged into larger parts, as in a
log-structured merge tree (O'Neil et al. 1996). A part that lost most of its vectors is built again
with what is left, and one that lost all is dropped. An index is built CONCURRENTLY: nobody waits
for it.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import sql as compose

from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError, TransientError

PROGRESS_SECONDS = 5.0
SETTLE_SECONDS = 600  # a build waits so long for transactions that began before it

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Policy:
    """When parts are built; the figures behind it are in docs/performance.md."""

    tail_rows: int = 20_000  # so many vectors outside of any part become one
    fan_in: int = 4  # so many neighbours of like size are merged
    largest: int = 300_000  # rows of a part: a build must fit into its memory


@dataclass(frozen=True, slots=True)
class Part:
    """One partial index over the ids from `from_id` to before `to_id` of one model."""

    index_name: str
    model: str
    from_id: int
    to_id: int
    state: str = "building"
    rows: int | None = None  # when it was built; None until then
    live: int | None = None  # now, as Postgres estimates it

    @property
    def lost_most(self) -> bool:
        """Whether fewer than half of its vectors are left."""
        return 2 * (self.live or 0) < (self.rows or 0)


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    part: Part
    rows: int
    bytes: int
    seconds: float
    replaced: tuple[str, ...]  # names of the parts it took in, dropped


@dataclass(frozen=True, slots=True)
class Tail:
    """A model's oldest vectors that no part covers, as many as one part may hold."""

    rows: int
    to_id: int  # exclusive


class BusyError(EmbeddingAssetsError):
    """Another run builds this part at this moment."""


def next_range(
    sealed: Sequence[Part],
    tail: Tail,
    policy: Policy,
) -> tuple[int, int] | None:
    """The range of ids to build a part of next; None while nothing pays.

    The tail first: it is what slows search down. Then a part that lost most of its vectors, then
    the oldest neighbours of like size.
    """
    end = sealed[-1].to_id if sealed else 0
    if tail.rows >= policy.tail_rows:
        return end, tail.to_id
    for place, part in enumerate(sealed):
        if part.lost_most:
            return _filled_up(sealed, place)
    for start in range(len(sealed) - policy.fan_in + 1):
        group = sealed[start : start + policy.fan_in]
        rows = [part.live or 0 for part in group]
        if max(rows) < 2 * max(1, min(rows)) and sum(rows) <= policy.largest:
            return group[0].from_id, group[-1].to_id
    return None


def _filled_up(sealed: Sequence[Part], place: int) -> tuple[int, int]:
    """The range of a part that lost most, with the neighbours that fit into what it once held."""
    room = (sealed[place].rows or 0) - (sealed[place].live or 0)
    first = last = place
    while last + 1 < len(sealed) and (sealed[last + 1].live or 0) <= room:
        last += 1
        room -= sealed[last].live or 0
    while first > 0 and (sealed[first - 1].live or 0) <= room:
        first -= 1
        room -= sealed[first].live or 0
    return sealed[first].from_id, sealed[last].to_id


def waiting(connection: Connection, policy: Policy) -> bool:
    """Whether there is anything to build or to drop; changes nothing."""
    parts = _counted(connection)
    if any(part.state != "sealed" or part.live == 0 for part in parts):
        return True
    return any(_next_range(connection, row.model, parts, policy) for row in sql.models(connection))


def begin(database: Database, policy: Policy) -> Part | None:
    """The part to build next, written down as being built; None when there is none.

    One that was begun and never finished comes first. Parts that lost all their vectors are from
    now on read no more, and among `replaced_parts`.
    """
    return database.retrying(lambda connection: _begin(connection, policy))


def _begin(connection: Connection, policy: Policy) -> Part | None:
    parts = _counted(connection)
    for part in parts:
        if part.state == "building":
            return part
    for part in parts:
        if part.state == "sealed" and part.live == 0:
            sql.retire_part(connection, index_name=part.index_name)
    parts = [part for part in parts if part.live != 0]
    for row in sql.models(connection):
        ids = _next_range(connection, row.model, parts, policy)
        if ids is None:
            continue
        part = Part(_index_name(row.model, *ids), row.model, *ids)
        if there := next((each for each in parts if each.index_name == part.index_name), None):
            return there  # of the same range: built again under its name
        begun = sql.begin_part(
            connection,
            index_name=part.index_name,
            model=part.model,
            from_id=part.from_id,
            to_id=part.to_id,
        )
        if begun:  # else another run was quicker
            return part
    return None


def _counted(connection: Connection) -> list[Part]:
    """Every part; those that seem to have lost most are counted, as estimates may be wrong."""
    return [
        replace(part, live=_count(connection, part))
        if part.state == "sealed" and part.lost_most
        else part
        for part in all_parts(connection)
    ]


def _count(connection: Connection, part: Part) -> int:
    ids = {"from_id": part.from_id, "to_id": part.to_id}
    return int(sql.count_part(connection, model=part.model, **ids))


def _next_range(
    connection: Connection, model: str, parts: Sequence[Part], policy: Policy
) -> tuple[int, int] | None:
    sealed = [part for part in parts if part.model == model and part.state == "sealed"]
    end = sealed[-1].to_id if sealed else 0
    row = sql.tail(connection, model=model, sealed_until=end, limit=policy.largest)
    return next_range(sealed, Tail(row.rows, row.to_id), policy)


def find(database: Database, index_name: str) -> Part | None:
    """The part of that name."""
    parts = database.retrying(all_parts)
    return next((part for part in parts if part.index_name == index_name), None)


def replaced_parts(database: Database) -> list[str]:
    """Names of parts that search reads no more, and whose index is still to be dropped."""
    return [part.index_name for part in database.retrying(all_parts) if part.state == "dropping"]


def sealed_parts(connection: Connection, model: str) -> list[Any]:
    """The ranges of ids that search may read by an index, in their order."""
    return list(sql.sealed_parts(connection, model=model))


def all_parts(connection: Connection) -> list[Part]:
    """Every part, whatever its state."""
    return [Part(**row._asdict()) for row in sql.parts(connection)]


def _index_name(model: str, from_id: int, to_id: int) -> str:
    """Names the range; of the model a hash, since an identifier has 63 bytes."""
    digest = hashlib.sha256(model.encode()).hexdigest()[:6]
    return f"vector_part_{digest}_{from_id}_{to_id}"


class Builder:
    """Builds and drops parts on a connection of its own.

    CREATE INDEX CONCURRENTLY runs outside of a transaction and needs settings of its session, so
    the URL must lead to the server itself, not through a transaction-pooling proxy.
    """

    def __init__(self, url: str, *, memory: str, workers: int) -> None:
        self.url = url
        self._memory = memory
        self._workers = workers

    def build(self, database: Database, part: Part, progress: Progress = lambda _: None) -> Built:
        """Builds the part's index, or builds it again; then lets search read it.

        What an interrupted build left is taken away first. Readers and writers go on meanwhile.

        Raises:
            BusyError: another run builds it now.
            TransientError: a transaction stayed open for too long; the next try starts afresh.
            ConfigurationError: the role does not own the table.
        """
        started = time.monotonic()
        key = database.retrying(partial(sql.index_key, model=part.model))
        with self._connection() as connection:
            state = sql.index_state(connection, index_name=part.index_name)
            if state is not None and state.is_being_built:
                raise BusyError(f"{part.index_name} is being built by another run")
            if state is not None and not state.is_valid:
                progress("taking away what an interrupted build left")
                self._drop(connection, part.index_name)
                state = None
            with meanwhile(partial(self._watch, connection.info.backend_pid, progress)):
                if state is None:
                    connection.execute(_create(part, key))
                elif part.state == "sealed":
                    self._drop(connection, f"{part.index_name}_ccnew")  # of an interrupted one
                    connection.execute(_REINDEX.format(compose.Identifier(part.index_name)))
            state = sql.index_state(connection, index_name=part.index_name)
            # The planner's statistics are of the table before this part was added.
            connection.execute("ANALYZE chunk_embeddings")
        if state is None or not state.is_valid:
            raise TransientError(f"{part.index_name} was not built to its end")
        rows = database.retrying(partial(_count, part=part))
        replaced = database.retrying(lambda c: _seal(c, part, rows))
        self.drop(database, replaced)
        return Built(part, rows, state.bytes, time.monotonic() - started, tuple(replaced))

    def drop(self, database: Database, index_names: Sequence[str]) -> None:
        """Drops the indexes of parts that search reads no more."""
        if not index_names:
            return
        with self._connection() as connection:
            for index_name in index_names:
                self._drop(connection, index_name)
                database.retrying(partial(sql.forget_part, index_name=index_name))

    @staticmethod
    def _drop(connection: Connection, index_name: str) -> None:
        connection.execute(_DROP.format(compose.Identifier(index_name)))

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with (
            Database(self.url, application_name="embedding-assets index") as database,
            database.session() as connection,
        ):
            for name, value in (
                ("statement_timeout", "0"),
                ("lock_timeout", f"{SETTLE_SECONDS}s"),
                ("maintenance_work_mem", self._memory),
                ("max_parallel_maintenance_workers", str(self._workers)),
                # The server ends a build whose client was killed, instead of finishing it.
                ("client_connection_check_interval", "5s"),
            ):
                try:
                    connection.execute("SELECT set_config(%s, %s, false)", [name, value])
                except psycopg.DataError:
                    raise ConfigurationError(
                        f"Postgres refuses {name} = {value}: change INDEX_BUILD_MEMORY or"
                        " INDEX_BUILD_WORKERS"
                    ) from None
            try:
                yield connection
            except psycopg.errors.InsufficientPrivilege as error:
                raise ConfigurationError(
                    f"{error.diag.message_primary}: only the tables' owner may build an index; set"
                    " INDEX_DATABASE_URL to connect as the owner"
                ) from None

    def _watch(self, pid: int, progress: Progress, ended: threading.Event) -> None:
        with Database(self.url) as database:
            while not ended.wait(PROGRESS_SECONDS):
                row = database.retrying(lambda c: sql.build_progress(c, pid=pid))
                if row is not None:
                    progress(
                        f"{row.phase}: {row.tuples_done:,} vectors,"
                        f" {row.blocks_done:,} of {row.blocks_total:,} blocks"
                    )


def _seal(connection: Connection, part: Part, rows: int) -> list[str]:
    """In one transaction: search reads the new part, and no longer those that it took in."""
    sql.seal_part(connection, index_name=part.index_name, rows=rows)
    return [row.index_name for row in sql.replace_parts(connection, index_name=part.index_name)]


_CREATE = compose.SQL("""
    CREATE INDEX CONCURRENTLY {index} ON chunk_embeddings
    USING hnsw (({key}) {operators}) WITH ({options})
    WHERE model = {model} AND id >= {from_id} AND id < {to_id}
""")
_REINDEX = compose.SQL("REINDEX INDEX CONCURRENTLY {}")
_DROP = compose.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")


def _create(part: Part, key: Any) -> compose.Composed:
    # An index predicate takes no parameters.
    return _CREATE.format(
        index=compose.Identifier(part.index_name),
        key=compose.SQL(key.key),
        operators=compose.SQL(key.operators),
        options=compose.SQL(key.options),
        model=compose.Literal(part.model),
        from_id=compose.Literal(part.from_id),
        to_id=compose.Literal(part.to_id),
    )
