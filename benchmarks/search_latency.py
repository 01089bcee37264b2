"""How long a search takes over the shared meetings, copied until there are 210,000 chunks.

    python -m benchmarks.search_latency --data ../shared/data

Each copy has recordings and texts of its own. Vectors are drawn, as embedding so many would take
hours, so this says nothing about what is found. The question's embedding is not part of the times.
The searches are timed while nothing else happens, and while a worker embeds and publishes others.
"""

import hashlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Installation, installation, loopback_api
from benchmarks.retrieval import Meeting, Question, load, publish
from benchmarks.vectors import Population
from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Database
from embedding_assets.engine.vector_index import Builder, Policy, begin
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.search import Mode
from embedding_assets.settings import Settings
from embedding_assets.wiring import chunk_settings

ROOT = Path(__file__).resolve().parents[1]
DIMENSIONS = 384
MODEL = f"openai/text-embedding-3-small/{DIMENSIONS}"
COPIES = 10
LOADED = 2_400  # recordings that the worker embeds, a seventh of them hours long
SECONDS = 60  # for which searches are timed beside a worker; the index is then maintained, too
MODES = (Mode.hybrid, Mode.keyword, Mode.semantic)


class Drawn(dict[str, np.ndarray]):
    """A vector for each text, drawn when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._vectors = self._all()

    def __missing__(self, text: str) -> np.ndarray:
        self[text] = next(self._vectors)
        return self[text]

    def _all(self) -> Iterator[np.ndarray]:
        population = Population(DIMENSIONS)
        while True:
            yield from population.vectors(10_000)


def copied(meetings: Sequence[Meeting], number: int) -> list[Meeting]:
    """The meetings under other ids, each text with an end of its own."""
    return [
        Meeting(
            f"{meeting.recording_id}-{number}",
            meeting.title,
            [
                replace(
                    each,
                    text=f"{each.text} {number}",
                    content_hash=hashlib.sha256(f"{each.text} {number}".encode()).digest(),
                )
                for each in meeting.chunks
            ],
        )
        for meeting in meetings
    ]


def timed(
    database: Database, questions: Sequence[Question], vectors: Drawn, seconds: float
) -> list[str]:
    """Median and 95th percentile in milliseconds of searches over everything, for each mode."""
    took: dict[Mode, list[float]] = {mode: [] for mode in MODES}
    ends = time.monotonic() + seconds
    for number in itertools.count():
        question = questions[number % len(questions)]
        for mode in MODES:
            with database.transaction() as connection:
                started = time.perf_counter()
                connection.execute(
                    "SELECT * FROM search_transcript_chunks(%s, %s, %s)",
                    [question.text, vectors[question.text], mode],
                ).fetchall()
                took[mode].append((time.perf_counter() - started) * 1000)
        if time.monotonic() > ends:
            break
    return [f"{np.median(each):.0f}, {np.quantile(each, 0.95):.0f}" for each in took.values()]


def index(there: Installation) -> None:
    """Builds the parts of the vector index that are due, as the schedule does."""
    with Database(there.url) as database:
        builder = Builder(there.url, memory="256MB", workers=0)
        while (part := begin(database, Policy())) is not None:
            builder.build(database, part)


def keep_indexed(there: Installation, ended: threading.Event) -> None:
    """Indexes twice a minute; the schedule does it once, at any moment of these."""
    while not ended.wait(SECONDS / 2):
        index(there)


@click.command(help=__doc__)
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "data"
)
@click.option("--copies", default=COPIES, show_default=True)
def main(data: Path, copies: int) -> None:
    """Prints a table."""
    questions, meetings = load(data, chunk_settings(Settings()))
    table = Table("", *MODES, title="ms, p50 and p95")
    with (
        installation() as there,
        loopback_api(dimensions=DIMENSIONS) as settings,
        Database(there.url) as database,
    ):
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        vectors = Drawn()
        everything = [each for number in range(copies) for each in copied(meetings, number)]
        publish(database, everything, vectors, model=MODEL)
        index(there)
        count_words(database)
        with there.connect() as connection:
            connection.execute("VACUUM ANALYZE")
        np.random.default_rng(0).shuffle(questions)
        idle = timed(database, questions, vectors, SECONDS / 4)
        table.add_row(f"idle, {there.count('transcript_chunks'):,} chunks", *idle)
        there.load(LOADED, long=LOADED // 7)
        before, started = there.count("transcript_chunks"), time.monotonic()
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            env=there.environment,
            cwd=ROOT,
        )
        try:
            while there.count("transcript_chunks") == before:
                time.sleep(0.1)
            with meanwhile(lambda ended: keep_indexed(there, ended)):
                cells = timed(database, questions, vectors, SECONDS)
            if worker.poll() is not None:
                raise RuntimeError("the worker ended before the searches: raise LOADED")
            speed = (there.count("transcript_chunks") - before) / (time.monotonic() - started)
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        table.add_row(f"while {speed:,.0f} chunks/s are published", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
