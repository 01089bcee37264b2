"""How well search answers a set of questions whose answers are known."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from embedding_assets.engine import switching
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.search.search import Filters, Mode, question_vector, search
from embedding_assets.search.statements import sql

DEPTH = 10
RESAMPLES = 1_000
CONFIDENCE = 0.95


class Question(pydantic.BaseModel):
    """A question, and where its answer is.

    A chunk is right if it is of the recording and touches one of the turns (positions of segments,
    both ends included) or the time; without either, any chunk of the recording is.
    """

    model_config = pydantic.ConfigDict(coerce_numbers_to_str=True)

    question: str = pydantic.Field(min_length=1)
    recording_id: str = pydantic.Field(min_length=1)
    turns: list[tuple[int, int]] | None = None
    seconds: float | None = pydantic.Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over the questions, and its bootstrap confidence interval (95 %)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How one mode answered; every figure is from 0 to 1."""

    mode: Mode
    questions: int
    hit_at_1: Interval  # the best hit is right
    hit_at_5: Interval  # one of the best five is
    mrr: Interval  # mean of 1 / place of the first right hit, 0 beyond the tenth
    ndcg_at_10: Interval  # with every right chunk of equal worth

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@contextlib.contextmanager
def _reading(database: Database, embedder: Embedder, question: str | None) -> Iterator[None]:
    """With a question, search reads the embedder's model within the block."""
    if question is None:
        yield
        return
    question_vector(embedder, question, None)  # remembered: no request is made in the transaction
    with switching.as_if_live(database, embedder.model):
        yield


def read_questions(path: Path) -> list[Question]:
    """The questions of a file of JSON lines.

    Raises:
        InvalidInputError: naming the line and the field.
    """
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            questions.append(Question.model_validate_json(line))
        except pydantic.ValidationError as error:
            first = error.errors(include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInputError(f"{path}, line {number}: {field}: {first['msg']}") from None
    if not questions:
        raise InvalidInputError(f"{path} holds no question: a line is a JSON object each")
    return questions


def evaluate(
    database: Database,
    embedder: Embedder,
    questions: Sequence[Question],
    *,
    modes: Iterable[Mode] = tuple(Mode),
    within: bool = False,
    seconds: float | None = None,
    as_if_live: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Scores]:
    """Asks every question in each mode.

    Args:
        database: the application's.
        embedder: the live model; or another one that has vectors, with `as_if_live`.
        questions: with their answers.
        modes: to compare.
        within: whether each question is asked in its recording only.
        seconds: how long a question's embedding may take; None: as long as it takes.
        as_if_live: whether search reads the embedder's model for these questions alone.
        progress: is told how many questions were asked.

    Raises:
        ConfigurationError, TransientError: the model cannot be asked.
    """
    right_chunks = [_right_chunks(database, question) for question in questions]
    scores = []
    for number, mode in enumerate(modes):
        places = []
        for done, (question, right) in enumerate(zip(questions, right_chunks, strict=True), 1):
            with _reading(database, embedder, question.question if as_if_live else None):
                answer = search(
                    database,
                    embedder,
                    question.question,
                    mode=mode,
                    filters=Filters(recordings=[question.recording_id] if within else ()),
                    limit=DEPTH,
                    per_recording=DEPTH,
                    seconds=seconds,
                )
            places.append([(hit.recording_id, hit.chunk_index) in right for hit in answer.hits])
            progress(number * len(questions) + done)
        scores.append(score(mode, places, [len(right) for right in right_chunks]))
    return scores


def score(mode: Mode, places: Sequence[Sequence[bool]], right: Sequence[int]) -> Scores:
    """The figures of one mode.

    Args:
        mode: what was asked.
        places: for each question whether its hits are right, best first.
        right: for each question how many chunks are.
    """
    padded = np.zeros((len(places), DEPTH), dtype=bool)
    for row, found in zip(padded, places, strict=True):
        row[: len(found)] = found[:DEPTH]
    first = np.where(padded.any(axis=1), padded.argmax(axis=1) + 1, 0)
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = np.array([discounts[: max(1, min(DEPTH, count))].sum() for count in right])
    return Scores(
        mode,
        len(places),
        hit_at_1=_interval(first == 1),
        hit_at_5=_interval((first > 0) & (first <= 5)),
        mrr=_interval(np.where(first > 0, 1 / np.maximum(first, 1), 0)),
        ndcg_at_10=_interval((padded * discounts).sum(axis=1) / ideal),
    )


def _interval(values: Any) -> Interval:
    """By the percentiles of resampled means (Efron 1979), the same for the same values."""
    numbers = np.asarray(values, dtype=float)
    draw = np.random.default_rng(0)
    means = draw.choice(numbers, (RESAMPLES, len(numbers))).mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))


def _right_chunks(database: Database, question: Question) -> set[tuple[str, int]]:
    turns = json.dumps(question.turns)
    rows = database.retrying(
        lambda c: list(
            sql.right_chunks(
                c, recording_id=question.recording_id, turns=turns, seconds=question.seconds
            )
        )
    )
    return {(row.recording_id, row.chunk_index) for row in rows}
