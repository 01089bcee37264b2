import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from embedding_assets_tests.checkout import BIN, Checkout
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.processes import PROCESSES
from embedding_assets_tests.system.worker import work

Found = TypeVar("Found")
DIMENSIONS = 64
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def until(what: str, found: Callable[[], Found], seconds: float = 240) -> Found:
    """Polls until something is found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = found()
        if result:
            return result
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds} s")


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


@contextmanager
def development(checkout: Checkout) -> Iterator[int]:
    """`embedding-assets dev` of this checkout; gives its port, and ends all that it started."""
    port, search_port = _free_port(), _free_port()
    with (checkout.folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [
                str(BIN / "embedding-assets"),
                "dev",
                "--port",
                str(port),
                "--search-port",
                str(search_port),
            ],
            cwd=checkout.folder,
            env={**os.environ, "PYTHONPATH": str(checkout.folder), **checkout.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield port
            # It serves the search page beside Dagster's for as long.
            assert httpx.get(f"http://127.0.0.1:{search_port}/readyz").status_code == 200
        finally:
            _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all it started."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=20)
    for each in alive:
        each.kill()
    process.wait(timeout=10)
