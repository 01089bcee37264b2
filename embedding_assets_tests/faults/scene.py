"""The scene of a fault: recordings to embed, a worker, somebody who reads, and the end of it."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import psycopg

from embedding_assets.engine.database import Database
from embedding_assets.migrations import migrate
from embedding_assets.recorders.samples.generate import generate
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.faults.promises import (
    QUOTED,
    Corpus,
    Payments,
    Reader,
    assert_whole,
    look,
    reading,
    time_passes,
    wait_for_the_leases,
)
from embedding_assets_tests.faults.workers import ENDED, Patience, embed
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.processes import PROCESSES
from embedding_assets_tests.system.conftest import DIMENSIONS, engine_environment

RECORDINGS = 12
LEASE_SECONDS = 2
SECRET = "sk-not-to-be-told"
# Small requests, so that there are many moments between them.
SETTINGS = {"LEASE_SECONDS": str(LEASE_SECONDS), "EMBEDDING_MAX_REQUEST_TOKENS": "1000"}

_NUMBERS = itertools.count(1)


def publish_corpus(server: EmbeddedPostgres, name: str, *, template: str) -> None:
    """Makes a database whose recordings are embedded."""
    _copy(server, template, name)
    with (
        LoopbackAPI(dimensions=DIMENSIONS) as api,
        Database(server.url(name)) as database,
    ):
        Corpus(database, 0).add(generate(RECORDINGS, 0, seed=4))
        with working(server.url(name), api, "first", Patience()) as (process, _):
            process.join(timeout=60)
            assert process.exitcode == 0


@contextmanager
def corpus_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may end, with the corpus embedded in it."""
    server = EmbeddedPostgres(folder / "home")
    server.ensure_running()
    try:
        server.ensure_database("migrated")
        migrate(server.url("migrated"))
        publish_corpus(server, "published", template="migrated")
        yield server
    finally:
        server.stop()


def _copy(server: EmbeddedPostgres, template: str, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        # Else a crash takes a copied sequence back: Postgres 18 writes what its template had left
        # of the numbers logged in advance, and does not log them again.
        connection.execute("CHECKPOINT")


@contextmanager
def working(
    url: str,
    api: LoopbackAPI,
    run_id: str,
    patience: Patience,
    **settings: str,
) -> Iterator[tuple[BaseProcess, Connection]]:
    """A worker process, and where it says why it stopped; it is gone afterwards."""
    inbox, home = PROCESSES.Pipe(duplex=False)
    environment = engine_environment(url, api.base_url, **{**SETTINGS, **settings})
    environment["OPENAI_API_KEY"] = f"{SECRET}-{run_id}"
    process = PROCESSES.Process(target=embed, args=(environment, run_id, home, patience))
    process.start()
    home.close()
    try:
        yield process, inbox
    finally:
        process.kill()
        process.join()
        inbox.close()


class Scene:
    """One database, its recordings, the API, and who watches."""

    def __init__(
        self, server: EmbeddedPostgres, name: str, database: Database, api: LoopbackAPI, seed: str
    ) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        self.database = database
        self.api = api
        self.corpus = Corpus(database, seed)
        self.payments = Payments(database, api)
        self.said: list[str] = []
        self._runs = itertools.count(1)
        self.reader: Reader

    @classmethod
    @contextmanager
    def on(
        cls, server: EmbeddedPostgres, template: str, api: LoopbackAPI, chance: random.Random
    ) -> Iterator[Self]:
        """A copy of the published corpus, every recording of it edited, and a reader."""
        name = f"scene_{next(_NUMBERS)}"
        _copy(server, template, name)
        try:
            with Database(server.url(name)) as database:
                scene = cls(server, name, database, api, str(chance.random()))
                scene.corpus.find()
                with reading(scene.url) as reader:
                    scene.reader = reader
                    scene.corpus.edit_each()
                    yield scene
        finally:
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def work(
        self, *, url: str | None = None, patience: Patience | None = None, **settings: str
    ) -> Iterator[BaseProcess]:
        """A worker; what it says when it stops is noted."""
        run_id = f"run-{next(self._runs)}"
        self.payments.starts(f"{SECRET}-{run_id}")
        patience = patience or Patience()
        with working(url or self.url, self.api, run_id, patience, **settings) as (process, inbox):
            yield process
            process.join(timeout=90)
            assert process.exitcode is not None, "it does not end"
            if inbox.poll():
                self.said.append(inbox.recv())
            else:
                self.said.append(f"died of {process.exitcode}")

    def run(self, **options: Any) -> str:
        """A worker from its start to its end; gives what it said."""
        with self.work(**options) as process:
            process.join(timeout=90)
        return self.said[-1]

    def attempts(self) -> list[Any]:
        """What the attempts since the edits came to, by outcome and kind."""
        query = """
            SELECT outcome, error_kind, count(*) AS attempts FROM embedding_attempts
            WHERE run_id <> 'first' GROUP BY 1, 2 ORDER BY 1, 2
        """
        return look(self.database, query)

    def charged(self) -> dict[str, tuple[int, str | None, str | None]]:
        """The failed attempts of each recording that has any, and the kind and text of the last."""
        query = """
            SELECT recording_id, attempts, error_kind, last_error FROM embedding_queue
            WHERE attempts > 0
        """
        return {each.recording_id: each[1:] for each in look(self.database, query)}

    def paid_again(self) -> dict[str, int]:
        """Texts that the API answered more than once, and how often too many."""
        return {text: times - 1 for text, times in self.api.stats.inputs.items() if times > 1}

    def end(self, *, runs: int = 2, **settings: str) -> None:
        """The fault is over: without a hand all is completed, and every promise was kept."""
        for _ in range(runs):
            time_passes(self.database)
            wait_for_the_leases(self.database)
            assert self.run(**settings) == ENDED
            if not look(self.database, "SELECT 1 FROM embedding_queue WHERE status <> 'completed'"):
                break
        self.reader.end()
        assert_whole(self.database, self.corpus, self.reader)
        assert self.payments.of_stored_texts() == []
        assert look(self.database, QUOTED) == [(0,)]
        errors = look(self.database, "SELECT error FROM embedding_attempts WHERE error IS NOT NULL")
        told = [*self.said, *(each.error for each in errors)]
        assert not any(SECRET in text or "Traceback" in text for text in told), told
