"""What Dagster injects: the engine, opened for one run or one tick."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from embedding_assets.defs.partitions import partitions_since
from embedding_assets.engine.database import Database
from embedding_assets.engine.heartbeats import beating
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.session import Session
from embedding_assets.engine.vector_index import Builder, Policy
from embedding_assets.server.connections import open_database, open_source_database
from embedding_assets.settings import Settings
from embedding_assets.wiring import (
    batch_lane,
    fathom_keys,
    fathom_options,
    index_builder,
    index_policy,
    open_session,
)

if TYPE_CHECKING:
    from embedding_assets.engine.batches import BatchLane
    from embedding_assets.recorders.sync.fathom import SyncReport


class EmbeddingEngine(dg.ConfigurableResource[None]):
    """The engine as the settings describe it; nothing is opened before it is used."""

    @property
    def shares_titles(self) -> bool:
        """Whether titles of calls may be shown to whoever sees Dagster."""
        return Settings().share_titles

    @property
    def partitions_since(self) -> datetime | None:
        """From when on calls have a partition; None: all have."""
        return partitions_since(Settings().partition_months, datetime.now(UTC))

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """A connection to the application's database."""
        with open_database(Settings()) as database:
            yield database

    @contextlib.contextmanager
    def beating(self, run_id: str, instance: dg.DagsterInstance) -> Iterator[None]:
        """Says that this run is alive; report_dead_runs takes a silent one for dead.

        If Dagster counts it as ended meanwhile, for instance as a person said so of a run that did
        not answer, it may claim and write nothing more.
        """

        def was_ended() -> bool:
            try:
                run = instance.get_run_by_id(run_id)
            except Exception:  # Dagster's storage is away, which has errors of many classes
                return False
            return run is not None and run.is_finished

        with beating(self.database, run_id, Settings().lease, was_ended=was_ended):
            yield

    @contextlib.contextmanager
    def batch_lane(self, database: Database) -> Iterator["BatchLane"]:
        """The lane of batches, for one run."""
        with batch_lane(Settings(), database) as lane:
            yield lane

    def index_builder(self) -> Builder:
        """What builds parts of the vector index; it connects when it does."""
        return index_builder(Settings())

    def index_policy(self) -> Policy:
        """When parts are built."""
        return index_policy(Settings())

    @contextlib.contextmanager
    def session(self, run_id: str, *, lane: Lane, insert_batch: int | None) -> Iterator[Session]:
        """A session of the engine for one run."""
        with open_session(Settings(), run_id, lane=lane, insert_batch=insert_batch) as session:
            yield session


class Recorders(dg.ConfigurableResource[None]):
    """The recorders whose calls come in by themselves, as the settings name them."""

    def synchronise(self, tell: Callable[[str], None]) -> "SyncReport":
        """Reads Fathom with all keys; `tell` gets what people are to know.

        Raises:
            EmbeddingAssetsError: a setting is wrong, or the database takes nothing.
        """
        # Imported here: other runs need neither its HTTP client nor the formats of recorders.
        from embedding_assets.recorders.sync.fathom import synchronise  # noqa: PLC0415

        settings = Settings()
        with open_source_database(settings) as database:
            return synchronise(database, fathom_keys(settings), fathom_options(settings), tell=tell)
