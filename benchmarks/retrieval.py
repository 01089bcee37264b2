"""How well search finds what people ask for: the shared meetings, with questions by people.

    python -m benchmarks.retrieval --data ../shared/data

Each question is asked within its recording, and, where it makes sense without it (the committees),
over all recordings. A hit is right when it is of the right recording and touches a relevant turn.
The strict questions are those for which at most a tenth of the recording's chunks is relevant. The
ways to rank: vectors alone, words alone, both fused by reciprocal rank (Cormack et al. 2009), and
what search does by default. Embedding takes twenty minutes on two cores; vectors are kept on disk.
"""

import gzip
import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from embedding_assets.engine.chunking import ChunkSettings, chunk
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders.local import DIMENSIONS, MODEL, LocalEmbedder
from embedding_assets.engine.model import Chunk, Segment
from embedding_assets.engine.publication import insert_chunks
from embedding_assets.engine.transcripts import Call, Transcript
from embedding_assets.engine.vectors import InsertBatch, VectorRow, store_vectors
from embedding_assets.migrations import migrate
from embedding_assets.search.frequencies import count_words
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets.wiring import chunk_settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STRICT_SHARE = 0.1
DEPTH = 200  # hits that reciprocal rank fusion takes of each side
COMMITTEES = ("education", "covid")  # how their titles begin
RANK_CONSTANT = 60
SHARES = (0.5, 0.05, 0.005, 0.0005)
FILTERED_QUESTIONS = 100

Vector = NDArray[np.float32]
Place = tuple[str, int]


@dataclass(frozen=True)
class Question:
    """What a person asked about one recording, and the turns that answer it."""

    recording_id: str
    text: str
    relevant: list[tuple[int, int]]

    def is_answered_by(self, chunk: Chunk) -> bool:
        """Whether the chunk holds a part of the answer."""
        return any(
            chunk.first_position <= last and first <= chunk.last_position
            for first, last in self.relevant
        )


@dataclass(frozen=True)
class Meeting:
    """A recording in chunks."""

    recording_id: str
    title: str
    chunks: list[Chunk]


class Vectors:
    """Vectors of texts by the offline model, kept on disk between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._embedder = LocalEmbedder()
        self._known: dict[str, Vector] = {}
        if path.exists():
            stored = np.load(path)
            self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def __getitem__(self, text: str) -> Vector:
        return self._known[_key(text)]

    def fill(self, texts: Iterable[str]) -> None:
        """Embeds what is not known yet."""
        missing = list({_key(t): t for t in texts if _key(t) not in self._known}.items())
        parts = [missing[start : start + 8] for start in range(0, len(missing), 8)]
        with ThreadPoolExecutor(self._embedder.limits.concurrency) as pool:
            answers = pool.map(lambda part: self._embedder.embed([text for _, text in part]), parts)
            for part, answer in zip(parts, answers, strict=True):
                self._known.update(
                    (key, vector) for (key, _), vector in zip(part, answer.vectors, strict=True)
                )
        if missing:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            keys = np.array(list(self._known))
            np.savez(self._path, keys=keys, vectors=np.stack(list(self._known.values())))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def load(data: Path, settings: ChunkSettings) -> tuple[list[Question], list[Meeting]]:
    """The questions, and all meetings in chunks."""
    questions = [
        Question(str(q["recording_id"]), q["query"], [(a, b) for a, b in q["relevant_turns"]])
        for q in _lines(data / "queries.jsonl.gz")
    ]
    meetings = [
        Meeting(
            str(meeting["recording_id"]),
            meeting["title"],
            list(
                chunk(
                    [
                        Segment(n, each["speaker"], each["text"], each["start"])
                        for n, each in enumerate(meeting["segments"])
                    ],
                    settings,
                )
            ),
        )
        for meeting in _lines(data / "meetings.jsonl.gz")
    ]
    return questions, meetings


@contextmanager
def searchable(meetings: Sequence[Meeting], vectors: Vectors) -> Iterator[Database]:
    """A database in which these meetings are published, with their words counted."""
    with tempfile.TemporaryDirectory(prefix="retrieval-") as home:
        Path(home).chmod(0o711)  # as root, the server's user must get to its data
        server = EmbeddedPostgres(Path(home))
        server.ensure_running()
        try:
            server.ensure_database("retrieval")
            migrate(server.url("retrieval"))
            with Database(server.url("retrieval")) as database:
                publish(database, meetings, vectors)
                count_words(database)
                with database.session() as connection:
                    connection.execute("VACUUM ANALYZE")
                yield database
        finally:
            server.stop()


class VectorOf(Protocol):
    """Gives the vector of a text."""

    def __getitem__(self, text: str, /) -> Vector: ...


def publish(
    database: Database, meetings: Sequence[Meeting], vectors: VectorOf, *, model: str = MODEL
) -> None:
    """Writes what publishing writes, without the queue, into an empty database."""
    stored = {
        each.content_hash: VectorRow(each.content_hash, vectors[each.text], each.token_count)
        for meeting in meetings
        for each in meeting.chunks
    }
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO embedding_models (model, dimensions, is_live) VALUES (%s, %s, true)",
            [model, DIMENSIONS],
        )
    store_vectors(database, model, stored.values(), InsertBatch(1_000))
    with database.transaction() as connection:
        for meeting in meetings:
            call = Call(meeting.title, None, None, None, None, None)
            transcript = Transcript("", call, "", tuple(meeting.chunks))
            insert_chunks(connection, meeting.recording_id, transcript)


def ask(
    connection: Connection, question: Question, vector: Vector, mode: str, *, within: bool
) -> list[Place]:
    """The hits of the SQL function, best first."""
    filters = {"recordings": [question.recording_id]} if within else {}
    rows = connection.execute(
        "SELECT recording_id, chunk_index FROM search_transcript_chunks(%s, %s, %s, %s, %s, %s)",
        [question.text, vector, mode, json.dumps(filters), DEPTH, DEPTH],
    )
    return [(row.recording_id, row.chunk_index) for row in rows]


def by_reciprocal_rank(*rankings: Sequence[Place]) -> list[Place]:
    """Fuses rankings by the sum of 1 / (60 + rank)."""
    worth: dict[Place, float] = defaultdict(float)
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            worth[place] += 1 / (RANK_CONSTANT + rank)
    return sorted(worth, key=lambda place: -worth[place])


def measure(
    database: Database,
    questions: Sequence[Question],
    meetings: Sequence[Meeting],
    vectors: Vectors,
    *,
    within: bool,
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_], list[float]]:
    """For each way to rank, whether the best and one of the best five are right.

    Gives an array of shape (questions, 2) a way, which questions are strict, and the milliseconds
    that each default search took.
    """
    right = {m.recording_id: m.chunks for m in meetings}
    found: dict[str, list[list[bool]]] = defaultdict(list)
    strict, took = [], []
    for question in questions:
        answers = {
            (question.recording_id, each.index)
            for each in right[question.recording_id]
            if question.is_answered_by(each)
        }
        strict.append(0 < len(answers) <= STRICT_SHARE * len(right[question.recording_id]))
        vector = vectors[question.text]
        with database.transaction() as connection:
            ranked = {
                "vectors": ask(connection, question, vector, "semantic", within=within),
                "words": ask(connection, question, vector, "keyword", within=within),
            }
            started = time.perf_counter()
            ranked["default"] = ask(connection, question, vector, "hybrid", within=within)
            took.append((time.perf_counter() - started) * 1000)
        ranked["reciprocal rank"] = by_reciprocal_rank(ranked["vectors"], ranked["words"])
        for way, places in ranked.items():
            hits = [place in answers for place in places[:5]]
            found[way].append([hits[:1] == [True], any(hits)])
    return {way: np.array(each) for way, each in found.items()}, np.array(strict), took


def recall_under_filters(
    database: Database,
    questions: Sequence[Question],
    meetings: Sequence[Meeting],
    vectors: Vectors,
) -> Iterator[tuple[str, float, int]]:
    """How many of the ten truly nearest chunks a narrowed search by meaning finds.

    Gives the filter, the recall, and how many searches gave fewer hits than there were. Random
    recordings are drawn until they hold the share of the chunks; the last filter is of recordings
    that hold none of the thousand chunks nearest to the question.
    """
    sizes = {meeting.recording_id: len(meeting.chunks) for meeting in meetings}
    everything = sum(sizes.values())
    for share in (*SHARES, None):
        found = there = short = 0
        for number, question in enumerate(questions):
            vector = vectors[question.text]
            with database.transaction() as connection:
                if share is None:
                    wanted = _far_from(connection, vector)
                else:
                    wanted = _drawn(sizes, share * everything, seed=number)
                exact = connection.execute(
                    "SELECT recording_id, chunk_index FROM transcript_chunks"
                    " JOIN chunk_embeddings USING (content_hash) WHERE recording_id = ANY(%s)"
                    " ORDER BY embedding <=> %s LIMIT 10",
                    [wanted, vector],
                ).fetchall()
                hits = connection.execute(
                    "SELECT recording_id, chunk_index"
                    " FROM search_transcript_chunks(%s, %s, 'semantic', %s, 10, 10)",
                    [question.text, vector, json.dumps({"recordings": wanted})],
                ).fetchall()
            found += len(set(exact) & set(hits))
            there += len(exact)
            short += len(hits) < len(exact)
        name = "far from the question" if share is None else f"{share:.2%} of the chunks"
        yield name, found / there, short


def _drawn(sizes: dict[str, int], chunks: float, *, seed: int) -> list[str]:
    """Recordings in random order until they hold so many chunks."""
    wanted: list[str] = []
    names = list(sizes)
    for place in np.random.default_rng(seed).permutation(len(names)):
        if sum(sizes[name] for name in wanted) >= chunks:
            break
        wanted.append(names[place])
    return wanted


def _far_from(connection: Connection, vector: Vector) -> list[str]:
    rows = connection.execute(
        "SELECT recording_id FROM published_recordings WHERE recording_id NOT IN ("
        " SELECT recording_id FROM transcript_chunks JOIN chunk_embeddings USING (content_hash)"
        " ORDER BY embedding <=> %s LIMIT 1000)",
        [vector],
    )
    return [row.recording_id for row in rows]


@click.command(help=__doc__)
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "data"
)
def main(data: Path) -> None:
    """Prints one table and writes benchmarks/results/retrieval.json."""
    questions, meetings = load(data, chunk_settings(Settings()))
    vectors = Vectors(RESULTS / "minilm-vectors.npz")
    vectors.fill([question.text for question in questions])
    vectors.fill(each.text for meeting in meetings for each in meeting.chunks)
    titles = {meeting.recording_id: meeting.title for meeting in meetings}
    committees = [q for q in questions if titles[q.recording_id].startswith(COMMITTEES)]
    table = Table("", "questions", "hit@1", "hit@5", "strict", "hit@1", "hit@5", title="per cent")
    results: list[dict[str, Any]] = []
    with searchable(meetings, vectors) as database:
        for name, asked, within in (
            ("within recordings", questions, True),
            ("over all", committees, False),
        ):
            found, strict, took = measure(database, asked, meetings, vectors, within=within)
            for way, hits in found.items():
                everything, narrow = hits.mean(axis=0) * 100, hits[strict].mean(axis=0) * 100
                table.add_row(
                    f"{name}: {way}",
                    f"{len(hits)}",
                    *(f"{value:.1f}" for value in everything),
                    f"{strict.sum()}",
                    *(f"{value:.1f}" for value in narrow),
                )
                results.append(
                    {"set": name, "way": way, "all": everything.tolist(), "strict": narrow.tolist()}
                )
            Console(stderr=True).print(
                f"{name}: a default search took {np.median(took):.0f} ms (median),"
                f" {np.quantile(took, 0.95):.0f} ms (p95), without the question's embedding"
            )
        narrowed = Table(
            "filter", "recall@10", "too few hits", title="a narrowed search by meaning"
        )
        sample = questions[:: max(1, len(questions) // FILTERED_QUESTIONS)]
        for filter_, recall, short in recall_under_filters(database, sample, meetings, vectors):
            narrowed.add_row(filter_, f"{recall:.3f}", f"{short} of {len(sample)}")
            results.append({"set": "filtered", "way": filter_, "recall": recall, "short": short})
    Console(width=110).print(narrowed)
    Console(width=110).print(table)  # names and columns whole, also in a log
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "retrieval.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
