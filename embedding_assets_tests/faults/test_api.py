"""A worker, and an API that fails in every way."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import look
from embedding_assets_tests.faults.scene import Scene
from embedding_assets_tests.faults.workers import ENDED, Patience
from embedding_assets_tests.loopback_api import Fault

PLACE = "engine, API"
TIMEOUT = 2.0  # seconds
REQUESTS = 15  # a run makes more
DATE = "429 with a date"
HTML = b"<html><body>Bad gateway</body></html>"
PROSE = b'{"object": "list", "data": []}'

Vectors = NDArray[np.float32]


def _again(name: str, **when: Any) -> Fault:
    fault = Fault(**AGAIN[name], **when)
    if name == DATE:
        soon = datetime.now(UTC) + timedelta(seconds=2)
        fault.headers = {"retry-after": format_datetime(soon, usegmt=True)}
    return fault


def _timeout(name: str) -> float:
    return TIMEOUT if name in ENDLESS else 10.0


def _one_less(_: Sequence[str], vectors: Vectors) -> Vectors:
    return vectors[:-1]


def _shorter(_: Sequence[str], vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors[:, :-1])


# What stops a run at once, and what it says.
STOPS: dict[str, tuple[dict[str, Any], str]] = {
    "401": ({"status": 401, "code": "invalid_api_key"}, "OPENAI_API_KEY is refused"),
    "403": ({"status": 403}, "OPENAI_API_KEY is refused"),
    "404, no such model": ({"status": 404, "code": "model_not_found"}, "EMBEDDING_MODEL="),
    "404, no such path": ({"status": 404}, "OPENAI_BASE_URL"),
    "429 insufficient_quota": ({"status": 429, "code": "insufficient_quota"}, "raise it or set"),
    "a redirect": ({"status": 301, "headers": {"location": "/v2"}}, "OPENAI_BASE_URL leads on"),
    "vectors of another length": ({"spoil": _shorter}, "EMBEDDING_DIMENSIONS"),
}
# What a run asks again about, for a while.
AGAIN: dict[str, dict[str, Any]] = {
    "429 without a header": {"status": 429},
    "429 with seconds": {"status": 429, "headers": {"retry-after": "0.1"}},
    "429 with milliseconds": {"status": 429, "headers": {"retry-after-ms": "80"}},
    DATE: {"status": 429},
    "500": {"status": 500},
    "503": {"status": 503},
    "the connection closed": {"drop": True},
    "half an answer": {"truncate": True},
    "one vector too few": {"spoil": _one_less},
    "HTML with 200": {"body": HTML},
    "no vectors with 200": {"body": PROSE},
    "an answer that stays away": {"stall": 4.0},
    "an answer byte by byte": {"drip": 0.5},
}
FEW = {"429 without a header", "503", "half an answer", "an answer byte by byte"}
# Of these the server counts an answer that no client ever had.
ENDLESS = {"an answer that stays away", "an answer byte by byte"}
UNSEEN = {*ENDLESS, "one vector too few"}


def _is_ledger_right(scene: Scene) -> bool:
    query = "SELECT coalesce(sum(tokens), 0)::bigint FROM embedding_attempts WHERE run_id <> %s"
    return bool(look(scene.database, query, ["first"]) == [(scene.api.stats.tokens,)])


def _assert_paid_once(scene: Scene, fault: Fault) -> int:
    """What was answered twice had an answer that was none; gives how many texts that were."""
    again = scene.paid_again()
    assert {text: times for text, times in again.items() if times > fault.hit[text]} == {}
    return len(again)


@pytest.mark.moments(some=1, all=4)
@pytest.mark.parametrize("name", STOPS)
def test_a_fault_that_a_person_must_mend_stops_the_run_and_charges_no_recording(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    options, words = STOPS[name]
    fault = Fault(**options, after=chance.randrange(REQUESTS))
    scene.api.faults = [fault]
    told = scene.run()
    assert told.startswith("ConfigurationError: ")
    assert words in told
    assert scene.charged() == {}
    kinds = {each.error_kind for each in scene.attempts() if each.outcome != "published"}
    assert kinds == {"configuration"}
    held = "SELECT 1 FROM embedding_queue WHERE claimed_by IS NOT NULL"
    assert look(scene.database, held) == []
    scene.api.faults = []
    scene.end()
    _assert_paid_once(scene, fault)
    assert _is_ledger_right(scene)
    row(PLACE, name).moment("stopped, nothing charged")


@dataclass
class _Some:
    """Picks three requests in ten."""

    chance: random.Random

    def __call__(self, _: Sequence[str]) -> bool:
        return self.chance.random() < 0.3


@pytest.mark.moments(some=1, all=4)
@pytest.mark.parametrize("name", AGAIN)
def test_a_fault_of_three_requests_in_ten_is_passed_within_the_run(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    fault = _again(name, when=_Some(chance))
    scene.api.faults = [fault]
    assert scene.run(patience=Patience(12, _timeout(name))) == ENDED
    assert fault.hit
    assert scene.charged() == {}
    assert {each.outcome for each in scene.attempts()} == {"published"}
    scene.end()
    again = _assert_paid_once(scene, fault)
    assert name in UNSEEN or (again == 0 and _is_ledger_right(scene))
    row(PLACE, f"{name}, 30 % of requests").moment("passed within the run")


@pytest.mark.moments(some=1, all=4)
@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.whole_table) for n in AGAIN]
)
def test_a_fault_that_lasts_charges_those_who_waited_for_the_requests_and_nobody_else(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    fault = _again(name, after=chance.randrange(REQUESTS))
    scene.api.faults = [fault]
    assert scene.run(patience=Patience(timeout=_timeout(name))) == ENDED
    charged = scene.charged()
    assert {each[:2] for each in charged.values()} == {(1, "transient")}
    failed = [each for each in scene.attempts() if each.outcome == "failed"]
    assert [(each.error_kind, each.attempts) for each in failed] == [("transient", len(charged))]
    held = "SELECT 1 FROM embedding_queue WHERE claimed_by IS NOT NULL"
    assert look(scene.database, held) == []
    scene.api.faults = []
    scene.end()
    again = _assert_paid_once(scene, fault)
    assert name in UNSEEN or (again == 0 and _is_ledger_right(scene))
    row(PLACE, f"{name}, for good").moment("some failed, due again later")


@pytest.mark.moments(some=1, all=4)
@pytest.mark.parametrize("name", ["NaN", "a zero vector"])
def test_a_vector_that_is_none_fails_its_recording_alone(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    value = {"NaN": np.nan, "a zero vector": 0.0}[name]
    poison = f"Edit {chance.random()}"
    bad = chance.choice(scene.corpus.ids)
    query = "UPDATE fathom_transcripts SET edited_text = %s WHERE recording_id = %s AND position=3"
    scene.database.retrying(lambda c: c.execute(query, [poison, bad]))
    scene.corpus.versions.add(scene.corpus.version(bad))

    def spoil(texts: Sequence[str], vectors: Vectors) -> Vectors:
        vectors[[poison in text for text in texts]] = value
        return vectors

    fault = Fault(spoil=spoil, when=lambda texts: any(poison in text for text in texts))
    scene.api.faults = [fault]
    assert scene.run() == ENDED
    assert {id_: each[:2] for id_, each in scene.charged().items()} == {bad: (1, "invalid_input")}
    scene.api.faults = []
    scene.end()
    again = _assert_paid_once(scene, fault)
    line = row(PLACE, f"{name} for one text")
    line.moment("one recording failed")
    for _ in range(again):
        line.saw("neighbours paid again")
