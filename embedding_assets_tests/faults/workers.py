"""Processes that something happens to, each a function of its own."""

import os
import sys
from functools import partial
from multiprocessing.connection import Connection

from embedding_assets.engine.embedders import openai
from embedding_assets.engine.embedders.openai import OpenAIEmbedder, Retries
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.engine.in_flight import Lane
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session

ENDED = "ended"


def _settings(environment: dict[str, str]) -> Settings:
    os.environ.clear()
    os.environ.update(environment)
    return Settings()


def embed(
    environment: dict[str, str], run_id: str, home: Connection, attempts: int, timeout: float
) -> None:
    """Embeds what is due, with less patience than a worker has; says at its end why it stopped."""
    retries = Retries(attempts=attempts, first_wait=0.02, longest_wait=0.2)
    openai.OpenAIEmbedder = partial(OpenAIEmbedder, timeout=timeout, retries=retries)  # type: ignore[misc,assignment]
    try:
        settings = _settings(environment)
        with open_session(settings, run_id, lane=Lane.standard, insert_batch=None) as session:
            for _ in session.due():
                pass
            home.send(session.stopped or ENDED)
    except EmbeddingAssetsError as error:
        home.send(f"{type(error).__name__}: {error}")
        sys.exit(1)
