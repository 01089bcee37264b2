"""Killed at any moment: sweep, index builds, switch-model, batches, rechunk, and the sync."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets_tests.faults import workers
from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import CHUNKING, look, wait_for_the_leases, wait_until
from embedding_assets_tests.faults.scene import SECRET, SETTINGS, Scene
from embedding_assets_tests.faults.workers import ENDED
from embedding_assets_tests.loopback_batches import LoopbackBatches
from embedding_assets_tests.loopback_fathom import LoopbackFathom
from embedding_assets_tests.processes import PROCESSES
from embedding_assets_tests.system.conftest import DIMENSIONS, engine_environment

MEETINGS = 25  # more each time
FATHOM_KEY = "ann-secret"
OTHER_CHUNKS = ChunkSettings(target=40, overlap=8, maximum=60)
pytestmark = pytest.mark.slow


@dataclass
class Place:
    """What is killed: its process, its work, and what must hold after every kill."""

    target: Callable[[dict[str, str]], None]
    prepare: Callable[[Scene, random.Random, int], dict[str, str]]
    holds: Callable[[Scene], None]
    state: Callable[[Scene], str]


def _run(place: Place, scene: Scene, number: int, settings: dict[str, str], after: float) -> int:
    """Runs the process, and kills it after so many seconds; gives its exit code."""
    run_id = f"{place.target.__name__}-{number}"
    environment = {
        **engine_environment(scene.url, scene.api.base_url, **{**SETTINGS, **settings}),
        "OPENAI_API_KEY": f"{SECRET}-{run_id}",
        "RUN_ID": run_id,
    }
    process = PROCESSES.Process(target=place.target, args=(environment,))
    process.start()
    process.join(timeout=after)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


# The sweep.


def _unreferenced(scene: Scene, chance: random.Random, number: int) -> dict[str, str]:
    scene.database.retrying(
        lambda c: c.execute(
            "INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)"
            " SELECT model, sha256(convert_to(concat(%s::int, ' ', n), 'UTF8')), embedding, 1"
            " FROM (SELECT * FROM chunk_embeddings LIMIT 1) AS one, generate_series(1, 3000) AS n"
            " ON CONFLICT DO NOTHING",
            [number],
        )
    )
    return {}


LEFT = """
    SELECT count(*) FROM chunk_embeddings AS stored WHERE NOT EXISTS (
        SELECT FROM transcript_chunks AS chunks WHERE chunks.content_hash = stored.content_hash)
"""


def _nothing_said_lacks_a_vector(scene: Scene) -> None:
    query = """
        SELECT 1 FROM transcript_chunks AS chunks WHERE NOT EXISTS (
            SELECT FROM chunk_embeddings AS stored
            JOIN embedding_models AS models ON models.model = stored.model AND models.is_live
            WHERE stored.content_hash = chunks.content_hash)
    """
    assert look(scene.database, query) == []


def _swept(scene: Scene) -> str:
    return "left some" if look(scene.database, LEFT)[0][0] else "all swept"


# The vector index.


def _more_vectors(scene: Scene, chance: random.Random, number: int) -> dict[str, str]:
    _unreferenced(scene, chance, number)
    return {"INDEX_TAIL_ROWS": "2000", "INDEX_BUILD_MEMORY": "64MB"}


INDEXES = """
    SELECT parts.index_name, parts.state, indexes.indisvalid AS is_valid
    FROM vector_index_parts AS parts
    LEFT JOIN pg_index AS indexes ON indexes.indexrelid = to_regclass(parts.index_name)
"""


def _search_reads_valid_parts(scene: Scene) -> None:
    assert all(each.is_valid for each in look(scene.database, INDEXES) if each.state == "sealed")


def _index_state(scene: Scene) -> str:
    found = look(scene.database, INDEXES)
    building = [each for each in found if each.state == "building"]
    if building:
        return {None: "begun", False: "half built", True: "built, not sealed"}[building[0].is_valid]
    return "sealed, old parts there" if any(e.state == "dropping" for e in found) else "sealed"


# A switch of the model.


def _another_model(scene: Scene, chance: random.Random, number: int) -> dict[str, str]:
    """The next one, when search reads the last."""
    ((live,),) = look(scene.database, "SELECT model FROM embedding_models WHERE is_live")
    dimensions = int(live.rpartition("/")[2]) - 1
    return {"EMBEDDING_DIMENSIONS": str(dimensions), "EMBEDDING_MAX_REQUEST_TOKENS": "6000"}


def _model_state(scene: Scene) -> str:
    query = """
        SELECT models.is_live, count(stored.id) AS stored FROM embedding_models AS models
        LEFT JOIN chunk_embeddings AS stored USING (model) GROUP BY models.model, 1
        ORDER BY split_part(models.model, '/', 3)::int LIMIT 1
    """
    (newest,) = look(scene.database, query)
    return "switched" if newest.is_live else f"{'partly' if newest.stored else 'not'} filled"


# Batches.


def _edits(scene: Scene, chance: random.Random, number: int) -> dict[str, str]:
    scene.api.batches = scene.api.batches or LoopbackBatches()
    scene.corpus.edit(3)
    return {}


def _batch_state(scene: Scene) -> str:
    query = "SELECT state FROM embedding_batches WHERE state <> 'ended' LIMIT 1"
    found = look(scene.database, query)
    return str(found[0][0]) if found else "none open"


# Rechunking.


def _other_sizes(scene: Scene, chance: random.Random, number: int) -> dict[str, str]:
    scene.corpus.chunking = (CHUNKING, OTHER_CHUNKS)[number % 2]
    scene.corpus.versions |= scene.corpus.current()
    wait_for_the_leases(scene.database)
    sizes = scene.corpus.chunking
    return {
        "CHUNK_TARGET_TOKENS": str(sizes.target),
        "CHUNK_OVERLAP_TOKENS": str(sizes.overlap),
        "CHUNK_MAX_TOKENS": str(sizes.maximum),
    }


def _cut_state(scene: Scene) -> str:
    query = "SELECT count(DISTINCT cut_as) FROM published_recordings"
    return "cut in two ways" if look(scene.database, query)[0][0] > 1 else "cut in one way"


PLACES = {
    "sweep": Place(workers.sweep_vectors, _unreferenced, _nothing_said_lacks_a_vector, _swept),
    "vector index": Place(
        workers.build_index, _more_vectors, _search_reads_valid_parts, _index_state
    ),
    "switch-model": Place(
        workers.change_model, _another_model, _nothing_said_lacks_a_vector, _model_state
    ),
    "batch lane": Place(
        workers.lane_of_batches, _edits, _nothing_said_lacks_a_vector, _batch_state
    ),
    "rechunk": Place(workers.rechunk, _other_sizes, _nothing_said_lacks_a_vector, _cut_state),
}


@pytest.mark.timeout(1_800)
@pytest.mark.moments(some=6, all=75)
@pytest.mark.parametrize("name", PLACES)
def test_killed_at_any_moment_it_goes_on_where_it_was(
    scene: Scene, row: BeginRow, chance: random.Random, moments: int, name: str
) -> None:
    place, line = PLACES[name], row(name, "SIGKILL")
    assert scene.run() == ENDED
    began = time.monotonic()
    assert _run(place, scene, 0, place.prepare(scene, chance, 0), 100) == 0
    duration = time.monotonic() - began
    killed = 0
    for number in range(1, 30 * moments):
        if killed == moments:
            break
        settings = place.prepare(scene, chance, number)
        asks = _Asks(scene, settings)
        code = _run(place, scene, number, settings, chance.uniform(0, duration))
        if code == -signal.SIGKILL:
            killed += 1
            line.moment(place.state(scene))
        else:
            duration *= 0.9  # the first was slow
        place.holds(scene)
        asks.assert_none_for_what_was_stored(f"{SECRET}-{place.target.__name__}-{number}")
    assert killed == moments
    settings = place.prepare(scene, chance, 0)  # of the first again: by these the scene ends
    # The server goes on for some seconds with an index build whose client was killed.
    wait_until(lambda: _run(place, scene, 10_000, settings, 100) == 0)
    place.holds(scene)
    assert place.state(scene) in {"all swept", "sealed", "switched", "none open", "cut in one way"}
    scene.end(**{name: value for name, value in settings.items() if name in SHARED})
    assert name != "batch lane" or scene.paid_again() == {}


SHARED = {"EMBEDDING_DIMENSIONS"}


class _Asks:
    """What was stored before a process started: it must not ask for that."""

    def __init__(self, scene: Scene, settings: dict[str, str]) -> None:
        self._scene = scene
        dimensions = settings.get("EMBEDDING_DIMENSIONS", str(DIMENSIONS))
        query = (
            "SELECT encode(content_hash, 'hex') FROM chunk_embeddings"
            " WHERE split_part(model, '/', 3) = %s"
        )
        self._stored = {text for (text,) in look(scene.database, query, [dimensions])}

    def assert_none_for_what_was_stored(self, key: str) -> None:
        asked = self._scene.api.stats.asked.get(key, {})
        assert self._stored & set(asked) == set()
        assert [text for text, times in asked.items() if times > 1] == []


# The sync with the recorder.


@pytest.fixture
def fathom() -> Iterator[LoopbackFathom]:
    with LoopbackFathom([FATHOM_KEY]) as fathom:
        yield fathom


def _meet(fathom: LoopbackFathom, meetings: int) -> None:
    """So many more meetings, at this moment."""
    with fathom.lock:
        fathom.now = datetime.now(UTC)
        for _ in range(meetings):
            number = len(fathom.meetings) + 1
            words = ". ".join(f"Depot {number} counts {n} pallets" for n in range(8))
            fathom.add(str(number), fathom.now - timedelta(microseconds=number % 100), words)


def _transcripts(scene: Scene) -> dict[str, list[str]]:
    query = """
        SELECT recording_id, array_agg(text ORDER BY position) AS texts FROM fathom_transcripts
        WHERE recording_id NOT LIKE 'sample-%' GROUP BY 1
    """
    return {each.recording_id: each.texts for each in look(scene.database, query, None)}


@pytest.mark.timeout(1_800)
@pytest.mark.moments(some=6, all=75)
def test_a_sync_killed_at_any_moment_goes_on_where_it_was(
    scene: Scene, fathom: LoopbackFathom, row: BeginRow, chance: random.Random, moments: int
) -> None:
    line = row("Fathom sync", "SIGKILL")
    settings = {
        "FATHOM_API_KEYS": f"ann={FATHOM_KEY}",
        "FATHOM_BASE_URL": fathom.base_url,
        "FATHOM_SINCE": f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}",
    }
    place = Place(workers.sync_fathom, _edits, lambda _: None, lambda _: "")

    def there() -> dict[str, list[str]]:
        return {
            id_: [turn["text"] for turn in each.transcript if isinstance(turn, dict)]
            for id_, each in fathom.meetings.items()
            if each.transcript
        }

    killed = 0
    while killed < moments:
        _meet(fathom, MEETINGS)
        code = _run(place, scene, killed, settings, chance.uniform(0, 0.8))
        here = _transcripts(scene)
        assert here.items() <= there().items()  # each is whole, or not here at all
        if code == -signal.SIGKILL:
            killed += 1
            line.moment("left some" if len(here) < len(there()) else "all there")
    wait_until(
        lambda: _run(place, scene, killed, settings, 100) == 0 and _transcripts(scene) == there()
    )
