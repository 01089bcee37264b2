"""Homes of servers, what starts servers in other processes, and how they are looked at."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from embedding_assets.server.embedded_postgres import EmbeddedPostgres

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


PREPARE = """
import os, sys
import filelock  # which the server imports when it has to be started
from pathlib import Path
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), system_folder=Path(sys.argv[2]))
"""
# Everything is imported by then: the interpreter itself may lie where only root can go.
BECOME = """
os.setgroups([])
os.setgid(65534)
os.setuid(int(sys.argv[3]))
"""
START = PREPARE + "print(server.ensure_running(), flush=True)\n"
START_AND_STAY = START + "sys.stdin.read()\n"


class Place:
    """A temporary folder that all may enter; the servers made in it are stopped at the end."""

    def __init__(self, root: Path, template: Path) -> None:
        self.root = root
        self.template = template
        self.system = root / "system"
        self.servers: list[EmbeddedPostgres] = []
        self.starters: list[subprocess.Popen[str]] = []

    def server(self, name: str = "home") -> EmbeddedPostgres:
        server = EmbeddedPostgres(self.root / name, system_folder=self.system)
        self.servers.append(server)
        return server

    def running(self, name: str = "home") -> EmbeddedPostgres:
        """A server that was initialised and started; a copy, because initdb syncs to disk."""
        server = self.server(name)
        server.home.mkdir(parents=True)
        subprocess.run(["cp", "-a", self.template, server.home / "postgres"], check=True)
        assert server.ensure_running() is True
        return server

    def python(
        self,
        code: str,
        server: EmbeddedPostgres,
        *,
        prefix: Sequence[str] = (),
        uid: int = 0,
        **options: Any,
    ) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-c", code, str(server.home), str(self.system)]
        command.append(str(uid))
        starter = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        self.starters.append(starter)
        return starter

    def close(self) -> None:
        for starter in self.starters:
            starter.kill()
            starter.communicate()
        for server in self.servers:
            server.stop()
            if server.socket_dir.parent != server.home:
                shutil.rmtree(server.socket_dir, ignore_errors=True)
        shutil.rmtree(self.root)


def folder_for_all() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ep-", dir="/tmp")).resolve()
    folder.chmod(0o711)
    return folder


def query(server: EmbeddedPostgres, statement: str) -> Any:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def write(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement)


def postmaster(server: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))


def until(condition: Callable[[], Any]) -> None:
    """Wait for an event; pytest's time-out is the limit."""
    while not condition():
        threading.Event().wait(0.005)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def answer(starter: subprocess.Popen[str]) -> str:
    assert starter.stdout is not None
    return starter.stdout.readline().strip()


def server_user() -> pwd.struct_passwd:
    """Who the server runs as when we start it."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def as_server_user() -> dict[str, Any]:
    user = server_user()
    if os.geteuid() != 0:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


# A life without accidents


FOR_EVER = "DO $$ BEGIN LOOP END LOOP; END $$"


def busy_backend(
    server: EmbeddedPostgres, statement: str = FOR_EVER
) -> tuple[threading.Thread, psutil.Process]:
    """A backend that runs a statement; one that computes does not see its postmaster die."""
    pids: list[int] = []

    def loop() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            connection = psycopg.connect(server.url(), autocommit=True)
            pids.append(connection.info.backend_pid)
            connection.execute(statement)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    others = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
    until(lambda: query(server, f"{others} AND pid <> pg_backend_pid()") == 1)
    return thread, psutil.Process(pids[0])
