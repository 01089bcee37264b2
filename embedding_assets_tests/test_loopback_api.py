import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

import numpy as np
import openai
import pytest

from embedding_assets_tests.loopback_api import (
    MAX_INPUT_TOKENS,
    MAX_INPUTS,
    LoopbackAPI,
    embedding,
    embeddings,
    text_hash,
)


def _ask(url: str, texts: Any, **settings: Any) -> openai.types.CreateEmbeddingResponse:
    client = openai.OpenAI(api_key="k", base_url=url, max_retries=0)
    with client:
        return client.embeddings.create(model="any", input=texts, **settings)


def test_texts_that_share_words_are_near() -> None:
    question = embedding("what did they say about the pricing discount", 1536)
    near = embedding("The pricing, with a discount, was discussed.", 1536)
    far = embedding("our import failed on Tuesday", 1536)
    assert question @ near > question @ far + 0.2


@pytest.mark.parametrize("dimensions", [1, 8, 1536])
def test_every_text_has_a_direction_of_length_1(dimensions: int) -> None:
    vectors = embeddings(
        ["", "...", "a", "a word and another", "🎧", *map(str, range(500))], dimensions
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)


def test_a_text_has_the_same_vector_alone_in_a_batch_and_in_another_process() -> None:
    texts = ["the price is high", "nobody came"]
    program = (
        "from embedding_assets_tests.loopback_api import embedding\n"
        f"print(embedding({texts[1]!r}, 64).tobytes().hex())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = embeddings(texts, 64)[1]
    np.testing.assert_array_equal(here, embedding(texts[1], 64))
    assert elsewhere.stdout.strip() == here.tobytes().hex()


def test_the_client_as_its_makers_mean_it_understands_the_answers() -> None:
    with LoopbackAPI(dimensions=64) as api:
        for encoding in ({}, {"encoding_format": "float"}):
            answer = _ask(api.base_url, ["one", "two"], dimensions=16, **encoding)
            vectors = np.array([each.embedding for each in answer.data])
            np.testing.assert_allclose(vectors, embeddings(["one", "two"], 16), rtol=1e-6)
        assert answer.usage.total_tokens == 2
        assert api.stats.requests == api.stats.answered == 2
        assert api.stats.sent_twice == [text_hash("one"), text_hash("two")]


def test_an_answer_in_numbers_is_the_vector_to_the_last_bit() -> None:
    texts = ["one", "two words", "and a sentence with a good many more of them", "🎧"]
    with LoopbackAPI(dimensions=1536) as api:
        answer = _ask(api.base_url, texts, encoding_format="float")
    assert [each.index for each in answer.data] == [0, 1, 2, 3]
    assert [each.embedding for each in answer.data] == embeddings(texts, 1536).tolist()


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["a", ""],
        [[1, 2, 3]],
        ["a"] * (MAX_INPUTS + 1),
        ["a" * (3 * MAX_INPUT_TOKENS + 1)],
        ["a" * 3 * MAX_INPUT_TOKENS] * 37,
    ],
    ids=["none", "an empty one", "tokens", "too many", "too long", "too long together"],
)
def test_what_openai_refuses_is_refused_and_not_counted_as_answered(texts: Any) -> None:
    with LoopbackAPI() as api:
        with pytest.raises(openai.BadRequestError):
            _ask(api.base_url, texts)
        assert (api.stats.requests, api.stats.answered) == (1, 0)


def test_as_a_process_of_its_own_it_says_where_it_listens_and_what_it_counted() -> None:
    command = [sys.executable, "-m", "embedding_assets_tests.loopback_api", "--dimensions", "16"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            answer = _ask(url, "a text")
            assert len(answer.data[0].embedding) == 16
            with urllib.request.urlopen(url.removesuffix("/v1") + "/_stats") as told:  # noqa: S310
                stats = json.load(told)
            assert stats["inputs"] == {text_hash("a text"): 1}
            assert stats["asked"] == {"k": stats["inputs"]}
        finally:
            server.terminate()
