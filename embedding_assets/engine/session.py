"""One run's work: what is due or named is claimed and embedded, and given back at the end."""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from embedding_assets.engine import mending, queue
from embedding_assets.engine.database import Connection, Database, sql
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.outcome import Outcome
from embedding_assets.engine.queue import Claim, Claims


class Session:
    """One run's work: everything it needs, opened; what it still holds at the end is given back."""

    def __init__(
        self, database: Database, embedder: Embedder, claims: Claims, run: EmbeddingRun
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._claims = claims
        self._run = run

    @property
    def stopped(self) -> str | None:
        """Why this run stopped before everything due was done; None: it did not."""
        return self._run.stopped

    def take_over(self, dead_run: str | None) -> None:
        """Frees what a run that has ended still holds."""
        if dead_run is not None:
            self._claims.take_over(dead_run)

    def due(self, time_budget: timedelta | None = None) -> Iterator[Outcome]:
        """Embeds what is due until nothing is, or until the time budget is spent.

        What change tracking missed is due as well.
        """
        try:
            yield from self._run.embed(self._claim_due(time_budget), waits_for_batches=True)
        finally:
            self._remember_limit()

    def _claim_due(self, time_budget: timedelta | None) -> Iterator[Claim | None]:
        started = time.monotonic()
        yield from self._claims.due(time_budget=time_budget)
        # Not before: what is due would wait for it, and where there are triggers it finds nothing.
        queue.reconcile(self._database)
        if time_budget is not None:
            time_budget -= timedelta(seconds=time.monotonic() - started)
        yield from self._claims.due(time_budget=time_budget)

    def _remember_limit(self) -> None:
        """Writes down the account's limit, which decides how much is worth a batch."""
        pace = self._embedder.pace
        limit = None if pace is None else pace.told_tokens_per_minute
        if limit is not None:
            self._database.retrying(
                lambda c: sql.limit_told(c, model=self._embedder.model, tokens_per_minute=limit)
            )

    def these(self, recording_ids: Sequence[str]) -> Iterator[Outcome]:
        """Embeds these recordings in whatever state they are."""
        return self._run.embed(self._claims.these(recording_ids))

    def retry(self, recording_ids: Sequence[str], *, force: bool) -> Iterator[Outcome]:
        """Embeds those of these recordings that failed, with all their attempts before them."""

        def make_due(connection: Connection) -> list[str]:
            if force:
                mending.prepare_mending(connection, recording_ids)
            return queue.retry(connection, recording_ids, force=force)

        queued = self._database.retrying(make_due)
        return self.these(queued)

    def dead_letters(self) -> Iterator[Outcome]:
        """Gives the oldest dead letters another try."""
        return self._run.embed(self._claims.dead_letters())
