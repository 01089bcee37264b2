"""A real installation in a folder of its own: Postgres, Dagster with its daemon, the search server.

The long-lived programs are started again when they end, as a supervisor would do it.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg

from embedding_assets.server.connections import APPLICATION_DATABASE, DAGSTER_DATABASE
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.checkout import BIN, Checkout, short_folder
from embedding_assets_tests.loopback_receivers import Webhooks, free_port
from embedding_assets_tests.soak.ledger import MeteredAPI

DIMENSIONS = 64
LEASE_SECONDS = 15
START_SECONDS = 180.0  # on a machine that is busy with other things
# So short that each happens several times even in five minutes. Nothing here depends on when.
SETTINGS = {
    "EMBEDDING_PROVIDER": "openai",
    "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
    "OPENAI_API_KEY": "k",
    "CHUNK_TARGET_TOKENS": "60",
    "CHUNK_OVERLAP_TOKENS": "10",
    "CHUNK_MAX_TOKENS": "90",
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "INDEX_TAIL_ROWS": "300",
    "SERVE_REQUESTS_PER_MINUTE": "10000",
    "EMBED_PENDING_CRON": "* * * * *",
    "RECOVER_DEAD_LETTERS_CRON": "*/5 * * * *",
    "SWEEP_VECTORS_CRON": "*/4 * * * *",
    "CHECK_HEALTH_CRON": "*/3 * * * *",
    "SNAPSHOT_HEALTH_CRON": "*/5 * * * *",
    "COUNT_WORDS_CRON": "*/5 * * * *",
    "PRUNE_RUNS_CRON": "*/10 * * * *",
    "HEALTH_PENDING_WARNING": "5",
    "ALERT_SETTLE_MINUTES": "0",
}


class Supervised:
    """A long-lived program, its log, and how it is started again."""

    def __init__(
        self, name: str, command: list[str], checkout: Checkout, is_up: Callable[[], bool]
    ) -> None:
        self.name = name
        self.starts = 0
        self.is_being_killed = False  # from before the kill until it answers again
        self._command = command
        self._checkout = checkout
        self._is_up = is_up
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the process that was started last; 0 before the first."""
        return 0 if self._process is None else self._process.pid

    def is_running(self) -> bool:
        """Whether the process is there, and not whether it answers."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it; its output is added to its log."""
        with (self._checkout.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._checkout.folder,
                env={**os.environ, "PYTHONPATH": str(self._checkout.folder),
                     **self._checkout.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    def restart_if_ended(self) -> None:
        """What a supervisor does every few seconds."""
        with self._lock:  # whoever killed it waits for it, too
            if not self.is_running():
                self.start()

    def wait_until_up(self) -> None:
        """Returns once it answers.

        Raises:
            TimeoutError: it does not, for START_SECONDS.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            self.restart_if_ended()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not answer: see {self.name}.log")
            time.sleep(0.5)

    def is_up(self) -> bool:
        """Whether it answers."""
        with suppress(httpx.HTTPError):
            return self._is_up()
        return False

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, as far as they are there."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        return []

    def end(self) -> None:
        """Ends it and all that it started, which may take it a while to do by itself."""
        family = self.family()
        if self._process is not None and self.is_running():
            self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=30)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        if self._process is not None:
            self._process.wait(timeout=10)


class Installation:
    """The running parts, and where to ask them."""

    def __init__(self, checkout: Checkout, api: MeteredAPI, alerts: Webhooks) -> None:
        self.checkout = checkout
        self.api = api
        self.alerts = alerts
        self.server = EmbeddedPostgres(checkout.folder / ".local")
        self.url = self.server.url(APPLICATION_DATABASE)
        self.dagster_url = self.server.url(DAGSTER_DATABASE)
        self.temporary = Path(checkout.environment["TMPDIR"])
        port, idle, search = free_port(), free_port(), free_port()
        self.search_url = f"http://127.0.0.1:{search}"
        ports = ["--port", str(port), "--search-port", str(idle)]
        command = str(BIN / "embedding-assets")
        self.dev = Supervised(
            "dev",
            [command, "dev", *ports],
            checkout,
            lambda: httpx.get(f"http://127.0.0.1:{port}/server_info").is_success,
        )
        # In a process of its own, as where it is installed: it is killed, and started again.
        self.search = Supervised(
            "search",
            [command, "serve", "--port", str(search)],
            checkout,
            lambda: httpx.get(f"{self.search_url}/readyz", timeout=10).is_success,
        )

    @property
    def parts(self) -> tuple[Supervised, Supervised]:
        """What a supervisor looks after."""
        return self.dev, self.search


def _vacuum_often(checkout: Checkout) -> None:
    """Lets autovacuum look every ten seconds: all else happens more often than usual here, too."""
    url = EmbeddedPostgres(checkout.folder / ".local").url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = '10s'")
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def installation() -> Iterator[Installation]:
    """Installs and starts everything; ends and deletes it afterwards, whatever happened."""
    with (
        short_folder("soak") as folder,
        MeteredAPI(dimensions=DIMENSIONS, latency=0.8) as api,
        Webhooks() as alerts,
    ):
        temporary = folder / "tmp"
        temporary.mkdir()
        checkout = Checkout(
            folder,
            OPENAI_BASE_URL=api.base_url,
            ALERT_URLS=f"json://127.0.0.1:{alerts.port}/services/soak",
            TMPDIR=str(temporary),
            **SETTINGS,
        )
        checkout("init")
        _vacuum_often(checkout)
        running = Installation(checkout, api, alerts)
        try:
            for part in running.parts:
                part.start()
            for part in running.parts:
                part.wait_until_up()
            yield running
        finally:
            for part in running.parts:
                part.end()
            _end_what_is_left(folder)
            checkout("stop")


def _end_what_is_left(folder: Path) -> None:
    """Ends runs that a killed daemon has left without parents; Postgres has none of this."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PYTHONPATH") == str(folder):
                process.kill()
