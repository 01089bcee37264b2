"""What every measurement needs: an installation of its own, a loopback API, a measured process."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from embedding_assets.engine.database import Database
from embedding_assets.recorders.importing import import_recordings
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets.server.connections import APPLICATION_DATABASE, DAGSTER_DATABASE
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.server.installation import install
from embedding_assets.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DIMENSIONS = 1536


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, and what it means beside the one it is compared with."""

    what: str  # the same in every run, and once in its measurement: it is compared by this
    value: float | None  # None: it could not be measured, and `note` says why
    unit: str
    ratio: float | None = None  # of `ratio_of`
    ratio_of: str = ""
    aim: str = ""  # as the ratio, or the value where there is no ratio, was meant to be
    reached: bool | None = None
    more_is_better: bool | None = None  # None: as its unit says
    note: str = ""  # what differs from run to run


def at_least(aim: float | None, number: float) -> dict[str, Any]:
    """The fields of a figure that is to reach an aim; none without one."""
    return {} if aim is None else {"aim": f">= {aim:g}", "reached": number >= aim}


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process took, with its children: seconds, seconds of CPU, bytes at its peak."""

    wall: float
    cpu: float
    peak: int
    output: str


@dataclass(slots=True)
class Installation:
    """A home with an embedded server of its own, and the environment that leads there."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> EmbeddedPostgres:
        """The embedded server."""
        return EmbeddedPostgres(self.home)

    @property
    def url(self) -> str:
        """The application's database."""
        return self.server.url(APPLICATION_DATABASE)

    @property
    def dagster_url(self) -> str:
        """Dagster's storage, for psycopg."""
        return self.server.url(DAGSTER_DATABASE)

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the application's database, committing each statement."""
        return psycopg.connect(self.url, autocommit=True)

    def load(self, recordings: int, *, long: int = 0, seed: int = 0) -> None:
        """Imports generated recordings."""
        path = self.home / "recordings.jsonl"
        with path.open("w", encoding="utf-8") as file:
            write_jsonl(generate(recordings, long, seed), file)
        with Database(self.url) as database:
            import_recordings(database, [path], lambda _: None)
        path.unlink()

    def python(self, *arguments: str) -> Spent:
        """A process of this project's Python, measured from its start to its end."""
        return measured([sys.executable, *arguments], self.environment)

    def command(self, *arguments: str) -> Spent:
        """The `embedding-assets` command, measured likewise."""
        program = str(Path(sys.executable).with_name("embedding-assets"))
        return measured([program, *arguments], self.environment)

    def dagster_environment(self) -> dict[str, str]:
        """What Dagster's own programs need to find this home."""
        return {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_PG_URL": self.dagster_url.replace("postgresql", "postgresql+psycopg2", 1),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }

    def count(self, table: str) -> int:
        """Rows of a table."""
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        with self.connect() as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def installation(**settings: str) -> Iterator[Installation]:
    """A fresh home in a temporary folder, ended and removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="embedding-assets-bench-"))
    home.chmod(0o711)  # as root, the server's user must get to its data
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    environment = {**kept, "EMBEDDING_ASSETS_HOME": str(home), **settings}
    there = Installation(home, environment)
    try:
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from benchmarks.measuring import prepare; prepare({str(home)!r})",
            ],
            check=True,
            env=environment,
            cwd=ROOT,
        )
        yield there
    finally:
        there.server.stop()
        shutil.rmtree(home, ignore_errors=True)


def prepare(home: str) -> None:
    """Makes databases and tables in a home; in a process of its own, whose environment says so."""
    os.chdir(home)  # `install` writes .env beside the project: here, there is none to disturb
    import embedding_assets.server.installation as installation  # noqa: PLC0415, PLR0402

    installation.ENV_FILE = Path(home) / ".env"
    install(Settings())


@contextlib.contextmanager
def loopback_api(latency_ms: float = 0, dimensions: int = DIMENSIONS) -> Iterator[dict[str, str]]:
    """The OpenAI API in a process of its own; gives the settings that lead there."""
    process = subprocess.Popen(
        f"{sys.executable} -m embedding_assets_tests.loopback_api"
        f" --latency-ms {latency_ms} --dimensions {dimensions}".split(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        yield {
            "EMBEDDING_PROVIDER": "openai",
            "OPENAI_API_KEY": "benchmark",
            "OPENAI_BASE_URL": url,
            "EMBEDDING_MODEL": "text-embedding-3-small",
            "EMBEDDING_PRICE_PER_MILLION_TOKENS": "0.02",
        }
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextlib.contextmanager
def dagster_webserver(there: Installation) -> Iterator[str]:
    """Dagster's webserver on a home; gives its URL when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    process = subprocess.Popen(
        [program, "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)],
        env={**there.environment, **there.dagster_environment()},
        cwd=there.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/server_info", timeout=5).close()  # noqa: S310
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def measured(command: Sequence[str], environment: dict[str, str], folder: Path = ROOT) -> Spent:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{output[-3000:]}")
    kibibyte = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kibibyte, output)
