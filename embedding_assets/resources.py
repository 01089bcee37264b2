"""What Dagster injects: the engine, opened for one run or one tick."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg

from embedding_assets.engine import queue, transcripts
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import Lane, Outcome
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_database, open_run


class EmbeddingEngine(dg.ConfigurableResource[None]):
    """The engine as the settings describe it; nothing is opened before it is used."""

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """A connection to the application's database."""
        with open_database(Settings()) as database:
            yield database

    def embed_these(
        self,
        run_id: str,
        recording_ids: Sequence[str],
        *,
        lane: Lane = Lane.standard,
        insert_batch: int | None = None,
    ) -> Iterator[Outcome]:
        """Embeds these recordings in whatever state they are."""
        with open_run(Settings(), run_id, lane=lane, insert_batch=insert_batch) as (run, claims, _):
            yield from run.embed(claims.these(recording_ids))

    def embed_due(
        self,
        run_id: str,
        *,
        lane: Lane = Lane.standard,
        insert_batch: int | None = None,
        time_budget: timedelta | None = None,
    ) -> Iterator[Outcome]:
        """Embeds what is due until nothing is, or until the time budget is spent."""
        with open_run(Settings(), run_id, lane=lane, insert_batch=insert_batch) as (run, claims, _):
            yield from run.embed(claims.due(time_budget=time_budget))

    def discover(self) -> set[str]:
        """Queues recordings that change tracking missed; gives the ids of all there are."""
        with self.database() as database:
            queue.reconcile(database)
            return database.retrying(transcripts.source_ids)
