"""Connections of a server: a bounded number, and work that ends with its client alone."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.web import pool as pools
from embedding_assets.web.pool import NAME, BusyError, ClientGoneError, Pool
from embedding_assets_tests.web.conftest import Serving
from embedding_assets_tests.web.test_api import problem

SLEEPING = "SELECT pg_sleep(30)"


def asking(statement: str) -> Callable[[Database], Any]:
    """Work that runs one statement."""

    def work(database: Database) -> Any:
        with database.transaction() as connection:
            return connection.execute(statement).fetchone()  # type: ignore[arg-type]

    return work


async def soon(seconds: float = 0.2) -> None:
    await asyncio.sleep(seconds)


def running(database_url: str) -> list[str]:
    """The statements that servers' connections run or wait in."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = %s AND state <> 'idle'",
            [NAME],
        )
        return [row[0] for row in found]


def until(is_so: Callable[[], bool], seconds: float = 5.0) -> float:
    """How long it took until something was so."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


@contextlib.asynccontextmanager
async def pool_of(url: str, size: int = 1) -> AsyncIterator[Pool]:
    pool = Pool(url, size)
    try:
        yield pool
    finally:
        await asyncio.to_thread(pool.close)


@contextlib.contextmanager
def locked(database_url: str, table: str = "search_languages") -> Iterator[None]:
    """Nobody reads the table meanwhile: a search waits in its statement."""
    with psycopg.connect(database_url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
        yield


def test_a_client_that_goes_away_ends_its_query(database_url: str) -> None:
    async def check() -> None:
        async with pool_of(database_url) as pool:
            started = time.monotonic()
            with pytest.raises(ClientGoneError):
                await pool.run(asking(SLEEPING), soon)
            assert time.monotonic() - started < 2
            assert running(database_url) == []
            assert tuple(await pool.run(asking("SELECT 1"))) == (1,)

    asyncio.run(check())


def test_a_task_that_is_cancelled_ends_its_query(database_url: str) -> None:
    async def check() -> None:
        async with pool_of(database_url) as pool:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(asking(SLEEPING)), 0.3)
            assert running(database_url) == []
            assert tuple(await pool.run(asking("SELECT 1"))) == (1,)

    asyncio.run(check())


def test_the_next_request_is_not_ended_in_the_place_of_one_before(database_url: str) -> None:
    async def check() -> None:
        chance = random.Random(7)
        ended = 0
        async with pool_of(database_url) as pool:
            for number in range(200):
                seconds = chance.uniform(0, 0.02)
                try:
                    await pool.run(
                        asking("SELECT pg_sleep(0.01)"), lambda seconds=seconds: soon(seconds)
                    )
                except ClientGoneError:
                    ended += 1
                row = await pool.run(asking(f"SELECT {number}, pg_sleep(0.002)"))
                assert row[0] == number
        assert 20 < ended < 200

    asyncio.run(check())


def test_many_at_once_do_not_end_each_other(database_url: str) -> None:
    async def check() -> None:
        chance = random.Random(11)
        async with pool_of(database_url, 3) as pool:

            async def one(number: int) -> None:
                gone = None if number % 2 else lambda: soon(chance.uniform(0, 0.03))
                try:
                    row = await pool.run(asking(f"SELECT {number}, pg_sleep(0.01)"), gone)
                    assert row[0] == number
                except ClientGoneError:
                    assert gone is not None

            await asyncio.gather(*map(one, range(120)))

    asyncio.run(check())


def test_work_whose_client_left_while_it_waited_is_never_done(database_url: str) -> None:
    async def check() -> None:
        is_free, done = threading.Event(), []
        async with pool_of(database_url) as pool:
            first = asyncio.create_task(pool.run(lambda _: is_free.wait(10)))
            await soon()
            with pytest.raises(ClientGoneError):
                await pool.run(lambda _: done.append("second"), soon)
            is_free.set()
            assert await first
            await pool.run(lambda _: done.append("third"))
            assert done == ["third"]

    asyncio.run(check())


def test_who_waited_too_long_is_told_and_asks_the_database_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.2)

    async def check() -> None:
        done: list[str] = []
        async with pool_of(database_url) as pool:
            first = asyncio.create_task(pool.run(asking("SELECT 1, pg_sleep(0.6)")))
            await soon(0.05)
            with pytest.raises(BusyError):
                await pool.run(lambda _: done.append("second"))
            assert (await first)[0] == 1
            assert done == []

    asyncio.run(check())


def test_no_more_connections_are_opened_than_there_may_be(database_url: str) -> None:
    def backend(database: Database) -> int:
        with database.transaction() as connection:
            row = connection.execute("SELECT pg_backend_pid(), pg_sleep(0.02)").fetchone()
        return int(row[0])  # type: ignore[index]

    async def check() -> None:
        async with pool_of(database_url, 3) as pool:
            pids = await asyncio.gather(*(pool.run(backend) for _ in range(20)))
            assert len(set(pids)) <= 3

    asyncio.run(check())


def test_closing_ends_what_runs(database_url: str) -> None:
    async def check() -> None:
        pool = Pool(database_url, 1)
        task = asyncio.create_task(pool.run(asking(SLEEPING)))
        await asyncio.to_thread(until, lambda: running(database_url) == [SLEEPING])
        started = time.monotonic()
        await asyncio.to_thread(pool.close)
        assert time.monotonic() - started < 3
        with pytest.raises(Exception):  # noqa: B017, PT011  (whatever it is told)
            await task

    asyncio.run(check())
    until(lambda: running(database_url) == [])


@pytest.mark.parametrize("path", ["/api/search?q=truck&mode=keyword", "/?q=truck&mode=keyword"])
def test_over_http_a_search_ends_with_its_client(
    serving: Serving, database_url: str, path: str
) -> None:
    with serving(serve_search_seconds=60, serve_connections=1) as place:
        with locked(database_url):
            client = httpx.Client(base_url=place, timeout=1)
            with pytest.raises(httpx.ReadTimeout):
                client.get(path)
            client.close()
            until(lambda: running(database_url) == [])
        answer = httpx.get(f"{place}{path}")
        assert answer.status_code == 200
        assert "truck" in answer.text


def test_over_mcp_a_search_ends_with_its_client(serving: Serving, database_url: str) -> None:
    call = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "search_calls", "arguments": {"question": "a", "mode": "keyword"}},
    }  # fmt: skip
    accepted = {"accept": "application/json, text/event-stream"}
    with serving(serve_search_seconds=20, serve_connections=1) as place, locked(database_url):
        with (
            httpx.Client(base_url=place, timeout=1) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.post("/mcp", json=call, headers=accepted)
        until(lambda: running(database_url) == [])


def test_a_search_that_takes_too_long_is_told_so(serving: Serving, database_url: str) -> None:
    with serving(serve_search_seconds=0.3) as place, httpx.Client(base_url=place) as client:
        for path in ("/api/search?q=truck&mode=keyword", "/api/search?q=truck"):
            with locked(database_url):
                told = problem(client.get(path), 504)
            assert "narrow" in told["detail"]
            assert client.get(path).json()["hits"]
        with locked(database_url, "transcript_chunks"):
            problem(client.get("/api/recordings"), 504)
            problem(client.get("/api/recordings/zoom-price/transcript"), 504)


def test_over_http_who_waited_too_long_comes_again(
    serving: Serving, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.2)
    answers: list[httpx.Response] = []
    path = "/api/search?q=truck&mode=keyword"
    with serving(serve_connections=1, serve_search_seconds=1) as place, locked(database_url):
        asked = [
            threading.Thread(target=lambda: answers.append(httpx.get(f"{place}{path}")))
            for _ in range(3)
        ]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [503, 503, 504]
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert problem(busy, 503)["title"] == "Busy"
    assert busy.headers["retry-after"] == "5"


def test_a_database_that_is_away_is_told_and_found_again(
    serving: Serving, database: Database, database_url: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with serving() as place, httpx.Client(base_url=place, timeout=40) as client:
        assert client.get("/readyz").status_code == 200
        database.close()
        elsewhere = database_url.replace(f"/{name}", "/postgres")
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [name],
            )
            for path in (
                "/api/search?q=truck",
                "/api/recordings",
                "/api/recordings/zoom-price",
                "/readyz",
            ):
                answer = client.get(path)
                problem(answer, 503)
                assert answer.headers["retry-after"] == "5"
            assert client.get("/healthz").json() == {"status": "ok"}
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert client.get("/api/search?q=truck").json()["hits"]
        assert client.get("/readyz").status_code == 200


def test_a_request_after_the_connections_broke_is_answered(
    serving: Serving, database_url: str
) -> None:
    with serving(serve_connections=1) as place, httpx.Client(base_url=place) as client:
        for _ in range(3):
            assert client.get("/api/recordings").status_code == 200
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = %s",
                    [NAME],
                )


def test_an_older_schema_is_not_ready(
    serving: Serving, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as place, httpx.Client(base_url=place) as client:
        with database.transaction() as connection:
            connection.execute("UPDATE embedding_assets_version SET version_num = '0010'")
        # Anybody may ask this, so that the reason is in the log alone.
        assert "log" in problem(client.get("/readyz"), 503)["detail"]
        assert "embedding-assets init" in caplog.text
        assert client.get("/healthz").status_code == 200
