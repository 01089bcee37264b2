import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from embedding_assets_tests.loopback_api import LoopbackAPI

DIMENSIONS = 64
Start = Callable[[str], subprocess.Popen[str]]


def engine_environment(database_url: str, api: LoopbackAPI, **more: str) -> dict[str, str]:
    """The settings of a process that works on this database with this model."""
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "DATABASE_URL": database_url,
        "EMBEDDING_PROVIDER": "openai",
        "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": api.base_url,
        "CHUNK_TARGET_TOKENS": "60",
        "CHUNK_OVERLAP_TOKENS": "10",
        "CHUNK_MAX_TOKENS": "90",
        **more,
    }


@contextmanager
def engine_process(run_id: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A worker process; whatever happens, it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "embedding_assets_tests.system.worker", run_id],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS, latency=0.02) as api:
        yield api
