"""What an error means for a request and for the run, decided without a database or a server."""

import pytest

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets.engine.queue import Claim
from embedding_assets.engine.verdicts import (
    FAILED_REQUESTS,
    REFUSED_RECORDINGS,
    ModelStanding,
    Verdict,
    verdict,
)


@pytest.mark.parametrize(
    ("error", "texts", "expected"),
    [
        (ConfigurationError("key"), 1, Verdict.STOP_RUN),
        (ConfigurationError("key"), 9, Verdict.STOP_RUN),
        (InvalidInputError("bad"), 9, Verdict.BISECT),
        (InvalidInputError("bad"), 2, Verdict.BISECT),
        (InvalidInputError("bad"), 1, Verdict.FAIL),
        (TransientError("later"), 9, Verdict.FAIL),
        (EmbeddingAssetsError("what"), 1, Verdict.FAIL),
    ],
)
def test_the_kind_and_the_number_of_texts_decide(
    error: EmbeddingAssetsError, texts: int, expected: Verdict
) -> None:
    assert verdict(error, texts) is expected


def _refuse(model: ModelStanding, count: int, *, was_refused: bool = False) -> None:
    for n in range(count):
        model.failed(InvalidInputError("vague"), Claim(f"r{n}", 0, was_refused=was_refused))


def test_a_model_that_refuses_enough_recordings_and_accepts_none_refuses_everything() -> None:
    model = ModelStanding()
    _refuse(model, REFUSED_RECORDINGS - 1)
    assert not model.refuses_everything
    _refuse(model, REFUSED_RECORDINGS)
    assert model.refuses_everything
    assert "OPENAI_BASE_URL" in str(model.configuration_error())
    model.accepted()
    assert not model.refuses_everything


def test_recordings_that_were_refused_before_are_no_evidence() -> None:
    model = ModelStanding()
    _refuse(model, 2 * REFUSED_RECORDINGS, was_refused=True)
    assert not model.refuses_everything


def test_a_refusal_is_in_doubt_until_a_text_is_accepted_or_it_names_the_text() -> None:
    model = ModelStanding()
    vague, named = InvalidInputError("vague"), InvalidInputError("named")
    named.names_input = True
    assert model.is_in_doubt(vague)
    assert not model.is_in_doubt(named)
    assert not model.is_in_doubt(TransientError("later"))
    assert not model.is_in_doubt(None)
    model.accepted()
    assert not model.is_in_doubt(vague)


def test_a_model_is_down_after_failures_in_a_row_only() -> None:
    model = ModelStanding()
    claim = Claim("r", 0)
    for _ in range(FAILED_REQUESTS - 1):
        model.failed(TransientError("later"), claim)
    model.accepted()
    for _ in range(FAILED_REQUESTS - 1):
        model.failed(TransientError("later"), claim)
    assert not model.is_down
    model.failed(TransientError("later"), claim)
    assert model.is_down
