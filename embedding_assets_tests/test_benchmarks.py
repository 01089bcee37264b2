"""The benchmarks run seldom, and by hand: what breaks them elsewhere is noticed here."""

import importlib
import inspect
import pkgutil
import typing

import numpy as np
import pytest

import benchmarks
from benchmarks import retrieval, throughput
from benchmarks.__main__ import BY_NAME, MEASUREMENTS
from benchmarks.measuring import Figure
from embedding_assets.engine.chunking import chunk
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedders.local import DIMENSIONS
from embedding_assets.engine.model import Segment
from embedding_assets_tests.calls import CHUNKING, rows, talk

ELSEWHERE = {
    "peer_cocoindex",
    "peer_langchain",
}  # programs for a peer's own Python, which alone has what it needs


@pytest.mark.parametrize(
    "name", sorted({each.name for each in pkgutil.iter_modules(benchmarks.__path__)} - ELSEWHERE)
)
def test_each_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", MEASUREMENTS + BY_NAME)
def test_each_that_is_registered_measures_when_told_nothing(name: str) -> None:
    measure = importlib.import_module(f"benchmarks.{name}").measure

    inspect.signature(measure).bind()
    assert typing.get_type_hints(measure)["return"] == list[Figure]


def test_what_is_published_for_search_is_what_copy_writes_again(
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = [Segment(n, "Ann", text, n or None) for n, text in enumerate(talk("a call", 20))]
    meeting = retrieval.Meeting("1", "A call", list(chunk(said, CHUNKING)))
    vector = np.ones(DIMENSIONS, np.float32)
    stored = (
        "SELECT chunk_index FROM transcript_chunks JOIN chunk_embeddings USING (content_hash)"
        " JOIN chunk_words USING (recording_id, chunk_index)"
        " JOIN published_recordings USING (recording_id)"
    )

    retrieval.publish(database, [meeting], {each.text: vector for each in meeting.chunks})
    published = rows(database, "SELECT * FROM transcript_chunks ORDER BY chunk_index")
    joined = len(rows(database, stored))
    monkeypatch.setenv("DATABASE_URL", database_url)
    throughput.copy()

    assert rows(database, "SELECT * FROM transcript_chunks ORDER BY chunk_index") == published
    assert len(rows(database, stored)) == joined == len(published) == len(meeting.chunks)
    assert float(capsys.readouterr().out) > 0
