"""How well search answers: the figures, their intervals, and questions that cannot be read."""

import math
from pathlib import Path

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, InvalidInputError
from embedding_assets.engine.switching import fill_model
from embedding_assets.engine.vectors import InsertBatch
from embedding_assets.search.evaluation import Question, evaluate, read_questions, score
from embedding_assets.search.search import Mode
from embedding_assets_tests.calls import embedder_of, rows, talk
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.search.conftest import Publish


def test_the_figures_are_those_of_the_textbook() -> None:
    scores = score(Mode.hybrid, [[True], [False, True, True], [False] * 10, []], [1, 2, 1, 3])
    assert scores.questions == 4
    assert scores.hit_at_1.mean == 0.25
    assert scores.hit_at_5.mean == 0.5
    assert scores.mrr.mean == (1 + 1 / 2) / 4
    second = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert scores.ndcg_at_10.mean == pytest.approx((1 + second) / 4)


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few = score(Mode.hybrid, [[True], [False]] * 5, [1] * 10).hit_at_1
    many = score(Mode.hybrid, [[True], [False]] * 500, [1] * 1_000).hit_at_1
    for interval in (few, many):
        assert interval.low <= interval.mean <= interval.high
    assert many.high - many.low < few.high - few.low


def test_every_mode_is_asked_and_turns_decide_what_is_right(
    database: Database, api: LoopbackAPI, publish: Publish
) -> None:
    zoo = [*talk("a", 40), "The zebra ate our purple invoice.", *talk("b", 40)]
    publish({"zoo": zoo, "other": talk("c", 40)})
    at = zoo.index("The zebra ate our purple invoice.")
    right = Question(question="purple zebra", recording_id="zoo", turns=[(at, at)])
    wrong = Question(question="purple zebra", recording_id="zoo", turns=[(0, 0)])
    elsewhere = Question(question="purple zebra", recording_id="other")
    scores = evaluate(database, embedder_of(api), [right, wrong, elsewhere])
    assert [each.mode for each in scores] == list(Mode)
    by_words = scores[2]
    assert by_words.hit_at_1.mean == pytest.approx(1 / 3)


def test_a_model_that_is_not_live_is_judged_as_if_it_were_and_stays_what_it_is(
    database: Database, api: LoopbackAPI, publish: Publish
) -> None:
    publish({"zoo": [*talk("a", 40), "The zebra ate our purple invoice."], "other": talk("c", 40)})
    old, new = embedder_of(api), embedder_of(api, model="text-embedding-3-large", dimensions=16)
    asked = [Question(question="The zebra ate our purple invoice.", recording_id="zoo")]
    fill_model(database, new, InsertBatch(50))
    modes = [Mode.semantic]
    with pytest.raises(ConfigurationError):  # search reads the old one
        evaluate(database, new, asked, modes=modes)
    (scores,) = evaluate(database, new, asked, modes=modes, as_if_live=True)
    assert scores.hit_at_5.mean == 1
    assert rows(database, "SELECT model FROM embedding_models WHERE is_live") == [(old.model,)]
    (scores,) = evaluate(database, old, asked, modes=modes)
    assert scores.hit_at_5.mean == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"question": "x"}', "line 1: recording_id"),
        ('{"question": "x", "recording_id": 7}\n{', "line 2: the line"),
        ('{"question": "", "recording_id": "r"}', "line 1: question"),
        ('{"question": "x", "recording_id": "r", "turns": [[1]]}', "line 1: turns.0"),
        ("\n", "holds no question"),
    ],
)
def test_a_question_that_cannot_be_read_is_named(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(lines)
    with pytest.raises(InvalidInputError, match=said):
        read_questions(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_questions(tmp_path / "nothing.jsonl")
