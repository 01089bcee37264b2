"""An engine process of a test: embeds what is due, and sends home what became of it."""

import os
import signal
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

# Imported here although the engine imports them when it needs them: this module is loaded once,
# in the server that the processes are forked from.
import embedding_assets.engine.embedders.openai
import embedding_assets.migrations  # noqa: F401
from embedding_assets import wiring
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders import Embedded, Embedder
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.outcome import Outcome, Result
from embedding_assets.server.connections import application_url
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session

CLAIMABLE = """
    SELECT recording_id FROM embedding_queue
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
    FOR UPDATE SKIP LOCKED
"""


class DeadlyModel:
    """The configured model, but a text with this marker in it kills the process."""

    def __init__(self, model: Embedder, marker: str) -> None:
        self._model = model
        self._marker = marker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embeds, or dies as a process dies that the system kills."""
        if any(self._marker in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._model.embed(texts)


class Report(NamedTuple):
    """What a worker did, and what it left."""

    published: list[str]
    errors: list[str]  # of everything that was not published
    claimable: list[str]  # what it could have taken when it ended


def work(
    environment: dict[str, str],
    run_id: str,
    *,
    take_over: str | None = None,
    start: Barrier | None = None,
    home: Connection | None = None,
    deadly: str | None = None,
) -> None:
    """Ends when nothing is due, or at a text with the deadly marker in it."""
    os.environ.clear()
    os.environ.update(environment)
    if deadly is not None:
        build = wiring.build_embedder
        wiring.build_embedder = lambda settings: DeadlyModel(build(settings), deadly)
    settings = Settings()
    with open_session(settings, run_id, lane=Lane.standard, insert_batch=None) as session:
        if start is not None:
            start.wait(timeout=100)
        session.take_over(take_over)
        outcomes = list(session.due())
    if home is not None:
        home.send(_report(settings, outcomes))


def _report(settings: Settings, outcomes: Iterable[Outcome]) -> Report:
    report = Report([], [], [])
    for outcome in outcomes:
        if outcome.result is Result.PUBLISHED:
            report.published.append(outcome.recording_id)
        else:
            report.errors.append(f"{outcome.recording_id}: {outcome.result}: {outcome.error}")
    with Database(application_url(settings)) as database, database.transaction() as connection:
        report.claimable.extend(row.recording_id for row in connection.execute(CLAIMABLE))
    return report
