"""The quality of search as Dagster keeps it: figures, the floor, and what is missing."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embedding_assets.defs.assets.retrieval_quality import retrieval_quality
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import Layer, failure_of

QUESTION = {"question": "the purple zebra", "recording_id": "a"}


def _materialize(layer: Layer) -> dg.ExecuteInProcessResult:
    return dg.materialize([retrieval_quality], instance=layer.instance, raise_on_error=False)


def _ask(environment: pytest.MonkeyPatch, tmp_path: Path, *questions: dict[str, Any]) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, questions)))
    environment.setenv("EVALUATION_QUESTIONS", str(path))


@pytest.mark.parametrize(("floor", "passes"), [("50", True), ("51", False)])
def test_the_figures_are_kept_and_the_floor_is_checked(
    layer: Layer, environment: pytest.MonkeyPatch, tmp_path: Path, floor: str, passes: bool
) -> None:
    layer.add_calls(a=[*talk("a", 20), "A purple zebra ran."], b=talk("b", 20))
    layer.materialize("a", "b")
    wrong = {**QUESTION, "recording_id": "nothing"}
    _ask(environment, tmp_path, QUESTION, wrong)
    environment.setenv("EVALUATION_FLOOR", floor)
    result = _materialize(layer)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert metadata["questions"] == 2
    assert metadata["keyword_hit_at_1"] == 0.5
    assert metadata["hybrid_hit_at_5"] == 0.5
    (check,) = result.get_asset_check_evaluations()
    assert check.passed is passes
    assert "zebra" not in str(metadata)


def test_without_questions_the_setting_is_named(
    layer: Layer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("EVALUATION_QUESTIONS", raising=False)
    assert "EVALUATION_QUESTIONS" in failure_of(_materialize(layer))[0]
    _ask(environment, tmp_path, {"question": "x"})
    assert "line 1: recording_id" in failure_of(_materialize(layer))[0]
