"""Which chunk sizes find what people ask for: recall within the recording, on QMSum's questions.

    python -m benchmarks.retrieval --data ../shared/data --sizes 180/32/254 --sizes 350/50/450

A question counts as answered at k when one of its best k chunks touches a relevant turn. Larger
chunks touch more turns, so the mean size and the share of relevant chunks stand beside the recall.
The strict questions are those for which at most a tenth of the recording's chunks is relevant.
"""

import gzip
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi
from rich.console import Console
from rich.table import Table

from embedding_assets.engine.chunking import ChunkSettings, chunk
from embedding_assets.engine.embedders.local import LocalEmbedder
from embedding_assets.engine.model import Segment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BASELINE_CHARACTERS = 1_500
STRICT_SHARE = 0.1
DEPTHS = (1, 5)


@dataclass(frozen=True)
class Passage:
    """A chunk, as far as retrieval sees it."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Question:
    """What a person asked about one recording, and the turns that answer it."""

    recording_id: int
    text: str
    relevant: list[tuple[int, int]]

    def touches(self, passage: Passage) -> bool:
        """Whether the passage holds a part of the answer."""
        return any(passage.first <= last and first <= passage.last for first, last in self.relevant)


@dataclass
class Score:
    """Shares of questions answered, in percent."""

    name: str
    passages: int
    mean_characters: float
    relevant_share: float
    at_1: float
    at_5: float
    strict_questions: int
    strict_at_1: float
    strict_at_5: float


Ranker = Callable[[Question, Sequence[Passage]], Sequence[int]]


def evaluate(
    name: str,
    questions: Sequence[Question],
    passages: dict[int, list[Passage]],
    rank: Ranker,
) -> Score:
    """Scores one way to cut and rank."""
    hits: dict[bool, list[list[bool]]] = {False: [], True: []}
    shares = []
    for question in questions:
        candidates = passages[question.recording_id]
        relevant = [question.touches(passage) for passage in candidates]
        shares.append(sum(relevant) / len(relevant))
        order = list(rank(question, candidates))
        found = [any(relevant[i] for i in order[:depth]) for depth in DEPTHS]
        hits[False].append(found)
        if 0 < shares[-1] <= STRICT_SHARE:
            hits[True].append(found)
    texts = [passage.text for each in passages.values() for passage in each]
    everything, strict = (np.array(hits[kind], float).mean(axis=0) * 100 for kind in (False, True))
    return Score(
        name=name,
        passages=len(texts),
        mean_characters=sum(map(len, texts)) / len(texts),
        relevant_share=float(np.mean(shares)) * 100,
        at_1=everything[0],
        at_5=everything[1],
        strict_questions=len(hits[True]),
        strict_at_1=strict[0],
        strict_at_5=strict[1],
    )


def baseline_passages(segments: Sequence[Segment]) -> list[Passage]:
    """Turns packed into at most 1,500 characters, for the BM25 baseline."""
    passages: list[Passage] = []
    lines: list[str] = []
    first = 0
    for segment in segments:
        line = f"{segment.speaker}: {segment.text}"
        if lines and len("\n".join([*lines, line])) > BASELINE_CHARACTERS:
            passages.append(Passage("\n".join(lines), first, segment.position - 1))
            lines, first = [], segment.position
        lines.append(line)
    return [*passages, Passage("\n".join(lines), first, segments[-1].position)]


def bm25(passages: dict[int, list[Passage]]) -> Ranker:
    """Ranks by words."""
    indexes = {
        key: BM25Okapi([_words(passage.text) for passage in each]) for key, each in passages.items()
    }

    def rank(question: Question, _: Sequence[Passage]) -> Sequence[int]:
        scores = indexes[question.recording_id].get_scores(_words(question.text))
        return list(np.argsort(-scores, kind="stable"))

    return rank


def nearest(vectors: "Vectors") -> Ranker:
    """Ranks by the cosine to the question's vector."""

    def rank(question: Question, candidates: Sequence[Passage]) -> Sequence[int]:
        matrix = np.stack([vectors[passage.text] for passage in candidates])
        return list(np.argsort(-(matrix @ vectors[question.text]), kind="stable"))

    return rank


class Vectors:
    """Vectors of texts by the offline model, kept on disk between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._embedder = LocalEmbedder()
        self._known: dict[str, NDArray[np.float32]] = {}
        if path.exists():
            stored = np.load(path)
            self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def __getitem__(self, text: str) -> NDArray[np.float32]:
        return self._known[_key(text)]

    def fill(self, texts: Sequence[str]) -> None:
        """Embeds what is not known yet."""
        missing = list(
            {_key(text): text for text in texts if _key(text) not in self._known}.items()
        )
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


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load(data: Path) -> tuple[list[Question], dict[int, list[Segment]]]:
    """The questions, and the transcripts that they are about."""
    questions = [
        Question(q["recording_id"], q["query"], [(a, b) for a, b in q["relevant_turns"]])
        for q in _lines(data / "queries.jsonl.gz")
    ]
    wanted = {question.recording_id for question in questions}
    transcripts = {
        meeting["recording_id"]: [
            Segment(position, each["speaker"], each["text"], each["start"])
            for position, each in enumerate(meeting["segments"])
        ]
        for meeting in _lines(data / "meetings.jsonl.gz")
        if meeting["recording_id"] in wanted
    }
    return questions, transcripts


@click.command(help=__doc__)
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "data"
)
@click.option(
    "--sizes", multiple=True, default=["180/32/254"], help="TARGET/OVERLAP/MAXIMUM in tokens."
)
@click.option("--no-labels", is_flag=True, help="Leave the speakers' names out of the chunks.")
def main(data: Path, sizes: tuple[str, ...], no_labels: bool) -> None:
    """Prints one table and writes benchmarks/results/retrieval.json."""
    questions, transcripts = load(data)
    packed = {key: baseline_passages(segments) for key, segments in transcripts.items()}
    scores = [evaluate("BM25, 1,500 characters", questions, packed, bm25(packed))]
    vectors = Vectors(RESULTS / "minilm-vectors.npz")
    vectors.fill([question.text for question in questions])
    for each in sizes:
        started = time.monotonic()
        target, overlap, maximum = map(int, each.split("/"))
        settings = ChunkSettings(target, overlap, maximum)
        passages = {}
        for key, segments in transcripts.items():
            if no_labels:
                segments = [Segment(s.position, None, s.text, s.start_seconds) for s in segments]  # noqa: PLW2901
            passages[key] = [
                Passage(c.text, c.first_position, c.last_position)
                for c in chunk(segments, settings)
            ]
        vectors.fill([passage.text for key in passages for passage in passages[key]])
        name = f"MiniLM, {each}{', no labels' if no_labels else ''}"
        scores.append(evaluate(name, questions, passages, nearest(vectors)))
        Console(stderr=True).print(f"{name}: {time.monotonic() - started:.0f} s")
    _report(scores)


def _report(scores: Sequence[Score]) -> None:
    columns = ("chunks", "chars", "relevant %", "@1", "@5", "strict n", "strict @1", "strict @5")
    table = Table("", *columns)
    for score in scores:
        table.add_row(
            score.name,
            f"{score.passages:,}",
            f"{score.mean_characters:,.0f}",
            *(f"{value:.1f}" for value in (score.relevant_share, score.at_1, score.at_5)),
            f"{score.strict_questions}",
            f"{score.strict_at_1:.1f}",
            f"{score.strict_at_5:.1f}",
        )
    Console(width=120).print(table)  # names and columns whole, also in a log
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "retrieval.json").write_text(json.dumps([asdict(s) for s in scores], indent=2))


if __name__ == "__main__":
    main()
