"""A hundred people who search at once for half a minute, through a server, while a worker loads.

The shared meetings four times, 73,000 chunks, published as a worker does it; each copy has ids,
speakers and so texts and vectors of its own. The server, those who ask, the worker, the model on a
loopback address and Postgres share the machine. Whoever asks goes on as soon as they have an
answer, with what nobody asked before: a question that a person wrote, and one more word.
"""

import asyncio
import gzip
import itertools
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen, run
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.measuring import ROOT, Figure, Installation, installation, loopback_api
from benchmarks.search_latency import index, keep_indexed
from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Database
from embedding_assets.recorders.importing import import_recordings
from embedding_assets.search.access import NOBODY, reading
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.statements import sql
from embedding_assets.web.pool import NAME
from embedding_assets_tests.loopback_api import embedding

Seen = list[tuple[int, int]]  # bytes and connections of the server

MODULE = "benchmarks.serving"
WORKER = "benchmarks.worker"
DATA = ROOT.parent / "shared" / "data"
DIMENSIONS = 384
COPIES = 4  # of the meetings, 18,000 chunks each
LOADED = 5  # further copies, which the worker embeds while others search
QUESTIONS = 20_000  # for one crowd, more than are answered
LONGEST_ANSWER = 60.0  # seconds; whoever waits longer counts as an error
ALONE = 10  # seconds for which the worker is measured without searches, before and after
IDLE = ((1, 10), (10, 10), (100, 20))  # how many ask at once, and for how many seconds
LOADING = (100, 30)
ASKED = {"mode": "hybrid", "filters": "{}", "limit": 10, "per_recording": 3}


@dataclass
class Answers:
    """What those who asked got."""

    milliseconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=Counter)  # by status or exception
    by_words: int = 0  # answers for which the model was too late
    seconds: float = 0.0


def measure() -> list[Figure]:
    """All figures of this module."""
    if not DATA.exists():
        return [Figure(f"not measured: the meetings are not in {DATA}", None, "")]
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        build(there)
        return figures(there)


def build(there: Installation) -> None:
    """Publishes the corpus and indexes it; leaves further recordings for a worker."""
    _bring(there, range(COPIES))
    there.python("-m", WORKER)
    index(there)
    with Database(there.url) as database:
        count_words(database)
        with database.session() as connection:
            connection.execute("VACUUM ANALYZE")
    _bring(there, range(COPIES, COPIES + LOADED))


def _bring(there: Installation, copies: range) -> None:
    """Imports copies of the meetings; speakers, who stand in the texts, have names of their own."""
    with (path := there.home / "meetings.jsonl").open("w", encoding="utf-8") as file:
        for meeting, copy in itertools.product(_read("meetings"), copies):
            told = {name: meeting[name] for name in ("title", "recorded_at")}
            told["recording_id"] = f"{meeting['recording_id']}-{copy}"
            said = [each for each in meeting["segments"] if each["text"]]
            told["segments"] = [{**e, "speaker": f"{e['speaker']} {copy}"} for e in said]
            file.write(json.dumps(told) + "\n")
    with Database(there.url) as database:
        assert not import_recordings(database, [path]).rejected
    path.unlink()


def _read(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _questions() -> Iterator[str]:
    """Questions without end, hardly any of them twice."""
    chance = random.Random(7)
    asked = [each["query"] for each in _read("queries")]
    said = (each["text"].lower() for meeting in _read("meetings") for each in meeting["segments"])
    words = sorted({word for text in said for word in re.findall(r"[a-z]+", text)})
    while True:
        yield f"{chance.choice(asked)} {chance.choice(words)}"


def figures(there: Installation) -> list[Figure]:
    """Asks as each crowd in turn; as the last one while a worker publishes."""
    supply = _questions()
    alone = _database_alone(there, list(itertools.islice(supply, 300)))
    chunks = there.count("transcript_chunks")
    found = [Figure(f"a search of {chunks:,} chunks at the database alone, p50", alone, "ms")]
    seen: Seen = []
    with _server(there) as (server, url), meanwhile(lambda end: _watch(there, server, seen, end)):
        for people, seconds in IDLE:
            answers = _crowd(there, url, people, seconds, supply)
            found += _figures(f"{people} at once, idle", answers, alone)
        with _worker(there) as marks, meanwhile(lambda end: keep_indexed(there, end)):
            time.sleep(ALONE)
            marks.append(_mark(there))
            answers = _crowd(there, url, *LOADING, supply)
            marks.append(_mark(there))
            time.sleep(ALONE)
            marks.append(_mark(there))
        found += _figures(f"{LOADING[0]} at once, a worker loads", answers, alone)
    before, beside, after = (
        (last[1] - first[1]) / (last[0] - first[0]) for first, last in itertools.pairwise(marks)
    )
    both = f"the worker without searches, {before:,.0f} before and {after:,.0f} after"
    found.append(Figure("published", beside, "chunks/s", beside / ((before + after) / 2), both))
    memory, connections = [size / 2**20 for size, _ in seen], max(number for _, number in seen)
    for when, size in (("at most", max(memory)), ("at the end", memory[-1])):
        first = f"at its start, {memory[0]:.0f} MiB"
        found.append(Figure(f"memory of the server {when}", size, "MiB", size / memory[0], first))
    return [*found, Figure("the server's connections to the database at most", connections, "")]


def _database_alone(there: Installation, questions: list[str]) -> float:
    """Milliseconds of the statement that a search ends in, its vector being there."""
    took = []
    with Database(there.url) as database:
        for question in questions:
            vector = embedding(question, DIMENSIONS)
            with reading(database, NOBODY) as connection:
                started = time.perf_counter()
                list(sql.answer(connection, question=question, query=vector, **ASKED))
                took.append((time.perf_counter() - started) * 1000)
    return float(np.median(took[len(took) // 3 :]))  # the first ones read the tables


@contextmanager
def _process(there: Installation, *command: str) -> Iterator[Popen[str]]:
    options: Any = {"env": there.environment, "cwd": ROOT, "text": True, "stdout": PIPE}
    with (there.home / "processes.log").open("a") as log:  # a line for each request
        process = Popen(command, stderr=log, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


@contextmanager
def _server(there: Installation) -> Iterator[tuple[psutil.Process, str]]:
    program = str(Path(sys.executable).with_name("embedding-assets"))
    with _process(there, program, "serve", "--port", "0") as process:
        place = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
        assert place is not None, "the server did not start"
        yield psutil.Process(process.pid), place[0]


def _watch(there: Installation, server: psutil.Process, seen: Seen, ended: threading.Event) -> None:
    """Looks at the server's memory and its connections four times a second."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    with there.connect() as connection:
        while not ended.wait(0.25 if seen else 0):
            row = connection.execute(query, [NAME]).fetchone()
            seen.append((server.memory_info().rss, row[0] if row else 0))


@contextmanager
def _worker(there: Installation) -> Iterator[list[tuple[float, int]]]:
    """Publishes; gives a list with its first mark."""
    _, before = _mark(there)
    with _process(there, sys.executable, "-m", WORKER) as process:
        while (mark := _mark(there))[1] == before and process.poll() is None:
            time.sleep(0.2)
        yield [mark]
        assert process.poll() is None, "the worker ended before the searches: raise LOADED"


def _mark(there: Installation) -> tuple[float, int]:
    """The time, and how many chunks are published."""
    return time.monotonic(), there.count("transcript_chunks")


def _crowd(
    there: Installation, url: str, people: int, seconds: int, supply: Iterator[str]
) -> Answers:
    """What those who ask, in a process of their own, got."""
    given = json.dumps(list(itertools.islice(supply, QUESTIONS)))
    done = run(
        [sys.executable, "-m", MODULE, url, str(people), str(seconds)],
        input=given, stdout=PIPE, text=True, check=True, env=there.environment,
        cwd=ROOT, timeout=seconds + 2 * LONGEST_ANSWER,
    )  # fmt: skip
    return Answers(**json.loads(done.stdout))


def _figures(at: str, answers: Answers, alone: float) -> Iterator[Figure]:
    count, errors = len(answers.milliseconds), sum(answers.errors.values())
    kinds = ", ".join(f"{number} {kind}" for kind, number in answers.errors.items())
    rate = count / answers.seconds
    in_turn = f"one after the other at the database, {1000 / alone:.0f}"
    yield Figure(f"{at}: answered", count, "searches", note=f"in {answers.seconds:.0f} s")
    yield Figure(f"{at}: errors", errors, "errors", aim="0", reached=not errors, note=kinds)
    yield Figure(f"{at}: answered by words alone", answers.by_words, "searches")
    yield Figure(f"{at}: answered", rate, "searches/s", rate * alone / 1000, in_turn)
    for percent in (50, 95, 99) if count else ():
        took = float(np.percentile(answers.milliseconds, percent))
        yield Figure(f"{at}: p{percent}", took, "ms", took / alone, "the database alone, p50")


async def ask(url: str, people: int, seconds: float, questions: Iterator[str]) -> Answers:
    """Searches as so many people, each of whom waits for an answer before the next question."""
    answers = Answers()
    started = time.monotonic()

    async def person(client: httpx.AsyncClient) -> None:
        while time.monotonic() - started < seconds:
            asked = time.perf_counter()
            try:
                answer = await client.get("/api/search", params={"q": next(questions)})
                answers.by_words += answer.raise_for_status().json()["mode"] != "hybrid"
            except httpx.HTTPStatusError as error:
                answers.errors[str(error.response.status_code)] += 1
            except (httpx.HTTPError, ValueError, KeyError) as error:
                answers.errors[type(error).__name__] += 1
            else:
                answers.milliseconds.append((time.perf_counter() - asked) * 1000)

    limits = httpx.Limits(max_connections=people, max_keepalive_connections=people)
    options: Any = {"timeout": LONGEST_ANSWER, "limits": limits, "trust_env": False}
    async with httpx.AsyncClient(base_url=url, **options) as client:
        await asyncio.gather(*(person(client) for _ in range(people)))
    answers.seconds = time.monotonic() - started
    return answers


if __name__ == "__main__":
    url, people, seconds = sys.argv[1:]
    told = asyncio.run(ask(url, int(people), float(seconds), iter(json.load(sys.stdin))))
    print(json.dumps(asdict(told)))
