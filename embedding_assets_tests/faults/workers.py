"""Processes that something happens to, each a function of its own."""

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection

from embedding_assets.engine import database as connections
from embedding_assets.engine.batches import BatchLane, BatchTimes
from embedding_assets.engine.embedders import openai
from embedding_assets.engine.embedders.openai import OpenAIEmbedder, Retries
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.queue import enqueue_recordings
from embedding_assets.engine.rechunking import cut_otherwise
from embedding_assets.engine.sweeping import sweep
from embedding_assets.engine.switching import switch_model
from embedding_assets.engine.vector_index import begin, replaced_parts
from embedding_assets.engine.vectors import InsertBatch
from embedding_assets.recorders.sync.fathom import synchronise
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings
from embedding_assets.wiring import (
    build_embedder,
    chunk_settings,
    fathom_keys,
    fathom_options,
    index_builder,
    index_policy,
    open_session,
)

ENDED = "ended"


def _settings(environment: dict[str, str]) -> Settings:
    os.environ.clear()
    os.environ.update(environment)
    return Settings()


@dataclass(frozen=True)
class Patience:
    """How long a worker goes on; less than the settings give it."""

    attempts: int = 3  # of a request
    timeout: float = 10  # seconds, for an answer
    database: float = connections.RETRIES_SECONDS


def embed(environment: dict[str, str], run_id: str, home: Connection, patience: Patience) -> None:
    """Embeds what is due, with this patience; says at its end why it stopped."""
    connections.RETRIES_SECONDS = patience.database
    retries = Retries(attempts=patience.attempts, first_wait=0.02, longest_wait=0.2)
    openai.OpenAIEmbedder = partial(OpenAIEmbedder, timeout=patience.timeout, retries=retries)  # type: ignore[misc,assignment]
    try:
        settings = _settings(environment)
        with open_session(settings, run_id, lane=Lane.standard, insert_batch=None) as session:
            for _ in session.due():
                pass
            home.send(session.stopped or ENDED)
    except EmbeddingAssetsError as error:
        home.send(f"{type(error).__name__}: {error}")
        sys.exit(1)


def sweep_vectors(environment: dict[str, str]) -> None:
    """Deletes what no chunk refers to, also what is young."""
    with open_database(_settings(environment)) as database:
        sweep(database, grace=timedelta(0))


def build_index(environment: dict[str, str]) -> None:
    """Builds parts of the vector index until none pays, and drops what they replaced."""
    settings = _settings(environment)
    builder, policy = index_builder(settings), index_policy(settings)
    with open_database(settings) as database:
        while (part := begin(database, policy)) is not None:
            builder.build(database, part)
        builder.drop(database, replaced_parts(database))


def change_model(environment: dict[str, str]) -> None:
    """Embeds everything with the model of the settings, and lets search read it."""
    settings = _settings(environment)
    with open_database(settings) as database:
        switch_model(database, build_embedder(settings), InsertBatch(50))


def sync_fathom(environment: dict[str, str]) -> None:
    """Reads what is new at the recorder, to the present."""
    settings = _settings(environment)
    with open_database(settings) as database:
        synchronise(database, fathom_keys(settings), fathom_options(settings))


def lane_of_batches(environment: dict[str, str]) -> None:
    """Plans a batch of what is due, and advances all batches until none is open."""
    settings = _settings(environment)
    at_once = BatchTimes(poll=timedelta(0), lease=timedelta(0), later=timedelta(0))
    with open_database(settings) as database:
        embedder = build_embedder(settings)
        assert isinstance(embedder, OpenAIEmbedder)
        lane = BatchLane(database, embedder, chunk_settings(settings), times=at_once)
        lane.plan()
        while lane.open:
            for _ in lane.advance():
                pass


def rechunk(environment: dict[str, str]) -> None:
    """Makes due what is cut by other sizes than those of the settings, and embeds it."""
    settings = _settings(environment)
    with open_database(settings) as database:
        found = database.retrying(lambda c: cut_otherwise(c, chunk_settings(settings)))
        database.retrying(lambda c: enqueue_recordings(c, found.recording_ids))
    run_id = environment["RUN_ID"]
    with open_session(settings, run_id, lane=Lane.standard, insert_batch=None) as session:
        for _ in session.due():
            pass
