import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.system.worker import work

DIMENSIONS = 64
# Forked from a process that has imported everything: starting a hundred takes seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([work.__module__])


def engine_environment(database_url: str, api_url: str, **more: str) -> dict[str, str]:
    """The settings of a process that works on this database with this model."""
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "DATABASE_URL": database_url,
        "EMBEDDING_PROVIDER": "openai",
        "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": api_url,
        "CHUNK_TARGET_TOKENS": "60",
        "CHUNK_OVERLAP_TOKENS": "10",
        "CHUNK_MAX_TOKENS": "90",
        **more,
    }


@contextmanager
def engine_process(
    environment: dict[str, str], run_id: str, **arguments: Any
) -> Iterator[BaseProcess]:
    """A worker process; whatever happens, it is gone afterwards.

    Its API key is the run's id, so that the API can tell who asked for what.
    """
    process = PROCESSES.Process(
        target=work, args=({**environment, "OPENAI_API_KEY": run_id}, run_id), kwargs=arguments
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS, latency=0.02) as api:
        yield api
