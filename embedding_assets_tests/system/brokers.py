"""What a distributed installation stands on: Redis, and PgBouncer before Postgres."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

PORT = 6432  # of PgBouncer; it is part of its socket's name


class Server:
    """A server process on a Unix socket in its own folder, which may be restarted."""

    def __init__(self, command: Sequence[str | Path], folder: Path, socket: Path) -> None:
        self._command = [str(part) for part in command]
        self._folder = folder
        self.socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits for its socket."""
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "it does not come up"
            time.sleep(0.05)

    def stop(self) -> None:
        """Kills it, with its clients' connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None


def redis(parent: Path) -> Server:
    """Redis that keeps what it was given on disk, as docs/deployment.md says."""
    folder = parent / "redis"
    folder.mkdir()
    socket = folder / "redis.sock"
    config = ["--port", "0", "--unixsocket", socket, "--dir", folder]
    return Server(["redis-server", *config, "--appendonly", "yes"], folder, socket)


def pgbouncer(parent: Path, postgres_socket: Path, pool: int = 4) -> Server:
    """A transaction-pooling PgBouncer: each transaction may be on another server connection."""
    folder = parent / "pgbouncer"
    folder.mkdir()
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={postgres_socket} port=5432
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 1000
"""
    )
    user = []
    if os.geteuid() == 0:  # it refuses to run as root, and Postgres's socket is its user's alone
        user = ["-u", postgres_socket.owner()]
        shutil.chown(folder, postgres_socket.owner())
    socket = folder / f".s.PGSQL.{PORT}"
    return Server(["pgbouncer", *user, folder / "pgbouncer.ini"], folder, socket)


def restart(server: Server, down: float) -> None:
    """Takes a server away for some seconds."""
    server.stop()
    time.sleep(down)
    server.start()
