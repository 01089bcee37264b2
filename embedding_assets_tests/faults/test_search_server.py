"""The search server, and a database or a model that fails: it says so plainly, and comes back."""

import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from embedding_assets.settings import Settings
from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import wait_until
from embedding_assets_tests.faults.scene import Scene
from embedding_assets_tests.faults.test_database import (
    Fault,
    is_read_only,
    locked,
    shut_down,
    terminated_backends,
    too_many_connections,
)
from embedding_assets_tests.loopback_api import Fault as APIFault
from embedding_assets_tests.system.conftest import DIMENSIONS
from embedding_assets_tests.web.conftest import Serving

PLACE = "search server"
PLAIN = {503, 504}
QUESTION = {"q": "what was said about the import"}
IMPATIENT = 20.0  # seconds, after which somebody who searches has gone


class Asker(threading.Thread):
    """Searches all the time, and keeps what it is told."""

    def __init__(self, place: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[httpx.Response] = []
        self.amiss: list[str] = []
        self.slowest = 0.0
        self._place = place
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            with httpx.Client(base_url=self._place, timeout=IMPATIENT) as client:
                while not self._ended.wait(0.02):
                    began = time.monotonic()
                    self.answers.append(client.get("/api/search", params=QUESTION))
                    self.slowest = max(self.slowest, time.monotonic() - began)
        except Exception as error:  # pytest fails no test for an error in a thread
            self.amiss.append(repr(error))

    def end(self) -> None:
        """Returns after the last answer."""
        self._ended.set()
        self.join(timeout=IMPATIENT + 1)
        assert self.amiss == []


class _Serving(Serving):
    """A server on a scene's database."""

    def settings(self, **settings: Any) -> Settings:
        return super().settings(embedding_dimensions=DIMENSIONS, **settings)


def _hold(scene: Scene, row: BeginRow, chance: random.Random, name: str, fault: Fault) -> None:
    """Searches throughout a fault: every answer is one, and afterwards there are hits."""
    with _Serving(scene.url, scene.api)() as place:
        asker = Asker(place)
        asker.start()
        wait_until(lambda: asker.answers)
        assert asker.answers[0].json()["hits"]
        fault(scene, chance)
        wait_until(lambda: asker.answers[-1].status_code == 200)
        asker.end()
        last = httpx.get(f"{place}/api/search", params=QUESTION, timeout=IMPATIENT).json()
        assert last["hits"]
        assert httpx.get(f"{place}/readyz").status_code == 200
    line = row(PLACE, name)
    line.moment()
    for answer in asker.answers:
        line.saw(f"{answer.status_code}")
        if answer.status_code != 200:
            problem = answer.json()
            assert answer.status_code in PLAIN, problem
            assert answer.headers["content-type"] == "application/problem+json"
            assert not any(word in problem["detail"] for word in ("Traceback", "SELECT", "import"))
            assert len(problem["detail"]) < 400


FAULTS: dict[str, Fault] = {
    "its backends terminated five times": terminated_backends,
    "read-only database": is_read_only,
    "transcript_chunks locked": locked("transcript_chunks"),
    "fathom_transcripts locked": locked("fathom_transcripts"),
}


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", FAULTS)
def test_search_answers_plainly_while_its_database_fails_and_comes_back(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    _hold(scene, row, chance, name, FAULTS[name])


ON_ITS_OWN: dict[str, Fault] = {
    "database shut down immediately, and restarted": shut_down(signal.SIGQUIT),
    "too many connections": too_many_connections,
}


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", ON_ITS_OWN)
def test_search_answers_plainly_while_its_server_is_away_and_comes_back(
    own_scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    _hold(own_scene, row, chance, name, ON_ITS_OWN[name])


MODEL: dict[str, Callable[[], APIFault]] = {
    "the model refuses the key": lambda: APIFault(status=401),
    "the model is away": lambda: APIFault(status=503),
    "the model's answer stays away": lambda: APIFault(stall=4.0),
    "the model answers byte by byte": lambda: APIFault(drip=0.5),
}


@pytest.mark.moments(some=1, all=6)
@pytest.mark.parametrize("name", MODEL)
def test_search_goes_on_by_words_while_the_model_fails_and_comes_back(
    scene: Scene, row: BeginRow, chance: random.Random, name: str, moment: int
) -> None:
    with (
        _Serving(scene.url, scene.api)() as place,
        httpx.Client(base_url=place, timeout=IMPATIENT) as client,
    ):

        def ask() -> dict[str, Any]:
            # Another question each time: the vectors of known ones are kept.
            question = f"the import, for the {chance.random()} time"
            answer = client.get("/api/search", params={"q": question})
            assert answer.status_code == 200
            return dict(answer.json())

        assert ask()["notice"] is None
        scene.api.faults = [MODEL[name]()]
        began = time.monotonic()
        assert ask()["notice"]
        took = time.monotonic() - began
        scene.api.faults = []
        wait_until(lambda: ask()["notice"] is None)
    assert took < IMPATIENT
    row(PLACE, name).moment("by words alone, and said so")
