"""What people and recorders do with the installation, at a bounded pace: one thread each."""

import random
import threading
from collections import Counter
from datetime import timedelta

import httpx

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.engine.sweeping import sweep
from embedding_assets_tests.calls import rows
from embedding_assets_tests.loopback_api import text_hash
from embedding_assets_tests.soak.corpus import Corpus
from embedding_assets_tests.soak.installation import Installation

CALLS = 40  # that there are at a time, more or less
MOST_UNFINISHED = 25  # with more, a slow machine is left to catch up
# Changes a minute, each at random moments.
PACE = {"edit": 8.0, "come": 2.5, "go": 2.5, "come back": 1.0}
SEARCH_SECONDS = 2.0
SWEEP_SECONDS = 120.0
# As if a day had passed, which is how long the scheduled sweep leaves vectors alone.
GRACE = timedelta(minutes=3)
UNFINISHED = "SELECT count(*) FROM embedding_queue WHERE status <> 'completed'"
WORDS = ("price", "truck", "import", "sign-on", "rollout", "owner", "customer", "invoice", "delay",
         "report", "migration", "export", "mobile", "contract", "renewal", "support")  # fmt: skip


class Changes:
    """Changes the calls; the caller ticks it once a second."""

    def __init__(self, database: Database, corpus: Corpus, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._database = database
        self._corpus = corpus
        self._random = random.Random(seed)

    def begin(self) -> None:
        """Brings the first calls in."""
        for _ in range(CALLS):
            self._corpus.add()

    def tick(self) -> None:
        """Does what falls into this second."""
        ((unfinished,),) = rows(self._database, UNFINISHED)
        if unfinished > MOST_UNFINISHED:
            self.done["seconds of waiting"] += 1
            return
        for kind, a_minute in PACE.items():
            if self._random.random() < a_minute / 60:
                self._do(kind)

    def _do(self, kind: str) -> None:
        there = len(self._corpus.there)
        match kind:
            case "edit" if there:
                self._corpus.edit()
            case "come" if there < 1.2 * CALLS:
                self._corpus.add()
            case "go" if there > 0.8 * CALLS:
                self._corpus.delete()
            case "come back" if there < 1.2 * CALLS:
                self._corpus.bring_back()
            case _:
                return
        self.done[kind] += 1


class Searcher(threading.Thread):
    """Searches over HTTP, in every mode; each answer must be 200 while the server is up."""

    def __init__(self, installation: Installation, corpus: Corpus, seed: int) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.questions: set[str] = set()  # hashes
        self.amiss: list[str] = []
        self._installation = installation
        self._corpus = corpus
        self._random = random.Random(seed)
        self._ended = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._installation.search_url, timeout=30) as client:
            while not self._ended.wait(SEARCH_SECONDS):
                self._search(client)

    def end(self) -> None:
        """Returns when the last search is answered."""
        self._ended.set()
        self.join(timeout=60)

    def _search(self, client: httpx.Client) -> None:
        mode = self._random.choice(["hybrid", "keyword", "semantic"])
        question = " ".join(self._random.sample(WORDS, 3))
        self.questions.add(text_hash(question))
        search = self._installation.search
        is_killed, starts = search.is_being_killed, search.starts
        try:
            answer = client.get("/api/search", params={"q": question, "mode": mode})
        except httpx.TransportError as error:
            if is_killed or search.is_being_killed or search.starts != starts:
                self.done["while it was killed"] += 1
            else:
                self.amiss.append(f"a {mode} search was not answered: {error!r}")
            return
        if answer.status_code != 200:
            self.amiss.append(f"a {mode} search was answered {answer.status_code}: {answer.text}")
            return
        self.done[mode] += 1
        body = answer.json()
        if body["notice"]:
            self.done[f"with the notice: {body['notice']}"] += 1
        known = {recording_id for recording_id, _ in self._corpus.versions.copy()}
        if any(hit["recording_id"] not in known for hit in body["hits"]):
            self.amiss.append("a search found a call that was never there")


class Sweeper(threading.Thread):
    """Sweeps as the schedule does, with so short a grace that there is something to sweep."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.swept = 0
        self.amiss: list[str] = []
        self._url = url
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SWEEP_SECONDS):
            try:
                with Database(self._url, application_name="soak sweeper") as database:
                    self.swept += sweep(database, grace=GRACE)
            except EmbeddingAssetsError as error:
                self.amiss.append(f"a sweep failed: {error}")

    def end(self) -> None:
        """Returns when the last sweep is over."""
        self._ended.set()
        self.join(timeout=60)
