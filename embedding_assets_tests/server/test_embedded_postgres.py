"""A server's life: started once, shared by all, stopped, the same everywhere."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.server.places import (
    PREPARE,
    START_AND_STAY,
    Place,
    answer,
    on_linux,
    postmaster,
    query,
    write,
)


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
