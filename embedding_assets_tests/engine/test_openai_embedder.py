import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from embedding_assets.engine.embedders.openai import OpenAIEmbedder, Retries
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI, embedding

KEY = "sk-secret-0123456789"
QUICK = Retries(attempts=4, first_wait=0.001, longest_wait=0.05)


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(api_key=KEY, models=["text-embedding-3-small", "own"]) as api:
        yield api


def _embedder(api: LoopbackAPI, **settings: Any) -> OpenAIEmbedder:
    defaults = {"api_key": KEY, "base_url": api.base_url, "retries": QUICK, "timeout": 5.0}
    return OpenAIEmbedder(**{**defaults, **settings})


@pytest.mark.parametrize("ending", ["", "/"])
@pytest.mark.parametrize("ignores_base64", [False, True])
def test_vectors_come_in_order_whatever_the_server_encodes(
    ending: str, ignores_base64: bool
) -> None:
    texts = ["the price", "the import failed", "völlig anders 🎧"]
    with LoopbackAPI(ignores_base64=ignores_base64) as api:
        answer = _embedder(api, base_url=api.base_url + ending).embed(texts)
        assert answer.tokens == api.stats.tokens
    assert answer.vectors.dtype == np.float32
    assert answer.requests == 1
    expected = np.stack([embedding(text, 1536) for text in texts])
    np.testing.assert_allclose(answer.vectors, expected, rtol=1e-6)


def test_fewer_dimensions_are_asked_for(api: LoopbackAPI) -> None:
    embedder = _embedder(api, dimensions=256)
    assert embedder.embed(["a text"]).vectors.shape == (1, 256)
    assert embedder.model == "openai/text-embedding-3-small/256"


def test_calls_from_several_threads_are_in_flight_together() -> None:
    with LoopbackAPI(latency=0.2) as api:
        embedder = _embedder(api)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(embedder.embed, [[f"text {n}"] for n in range(4)]))
        assert api.stats.most_at_once > 1
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer.vectors[0], embedding(f"text {number}", 1536), rtol=1e-6)


PASSING = {
    "a rate limit": Fault(status=429),
    "a rate limit with seconds": Fault(status=429, headers={"retry-after": "0.01"}),
    "a rate limit with milliseconds": Fault(status=429, headers={"retry-after-ms": "5"}),
    "a rate limit with a date": Fault(
        status=429,
        headers={"retry-after": format_datetime(datetime.now(UTC))},
    ),
    "a rate limit with nonsense": Fault(status=429, headers={"retry-after": "soon"}),
    "a conflict": Fault(status=409),
    "a model that failed": Fault(status=424),
    "a server error": Fault(status=500),
    "a bad gateway": Fault(status=502),
    "an overload": Fault(status=503),
    "a dropped connection": Fault(drop=True),
    "half an answer": Fault(truncate=True),
    "no JSON": Fault(body=b"<html>busy</html>"),
    "another JSON": Fault(body=b'{"data": [{"index": 0}]}'),
    "too few vectors": Fault(body=b'{"data": []}'),
    "a list": Fault(body=b"[]"),
    "a vector for each word": Fault(body=b'{"data": [{"index": 0, "embedding": [[1.0]]}]}'),
    "no base64": Fault(body=b'{"data": [{"index": 0, "embedding": "AAA-_w=="}]}'),
    "another index": Fault(body=b'{"data": [{"index": 1, "embedding": [1.0]}]}'),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again(api: LoopbackAPI, name: str) -> None:
    fault = PASSING[name]
    api.faults = [Fault(**{**vars(fault), "times": 2})]
    answer = _embedder(api).embed(["a text"])
    assert answer.requests == api.stats.requests == 3


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_ends_after_a_bounded_number_of_requests(
    api: LoopbackAPI, name: str
) -> None:
    api.faults = [Fault(**{**vars(PASSING[name]), "times": None})]
    with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
        _embedder(api).embed(["a text"])
    if PASSING[name].status == 429:  # also bounded by time: the pace may learn to wait longer
        assert QUICK.attempts <= api.stats.requests <= 3 * QUICK.attempts
    else:
        assert api.stats.requests == QUICK.attempts


@pytest.mark.parametrize(
    "fault",
    [
        Fault(stall=1.0, times=1),
        Fault(drip=0.1, times=1),
        Fault(status=500, drip=0.1, times=1),
    ],
)
def test_an_answer_that_stays_away_or_has_no_end_is_asked_for_again(
    api: LoopbackAPI, fault: Fault
) -> None:
    api.faults = [fault]
    assert _embedder(api, timeout=0.2).embed(["a text"]).requests == 2


def test_a_server_that_is_not_there_is_named_without_its_credentials() -> None:
    embedder = OpenAIEmbedder(
        api_key=KEY, base_url="http://user:secret@127.0.0.1:9/v1", retries=QUICK
    )
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9 \(OPENAI_BASE_URL\)") as caught:
        embedder.embed(["a text"])
    assert "secret" not in str(caught.value)


def test_closing_ends_the_wait_for_a_busy_server(api: LoopbackAPI) -> None:
    api.faults = [Fault(status=429, headers={"retry-after": "50"})]
    embedder = _embedder(api, retries=Retries(attempts=3))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(embedder.embed, ["a text"])
        while not api.stats.requests:
            pass
        embedder.close()
        with pytest.raises(TransientError):
            call.result(timeout=10)


CONFIGURATION = {
    "a refused key": (Fault(status=401), "OPENAI_API_KEY"),
    "a forbidden key": (Fault(status=403), "OPENAI_API_KEY"),
    "a used-up quota": (Fault(status=429, code="insufficient_quota"), "quota"),
    "an unpaid bill": (Fault(status=429, code="billing_not_active"), "quota"),
    "a used-up credit": (Fault(status=402), "quota"),
    "an unknown model": (Fault(status=404, code="model_not_found"), "EMBEDDING_MODEL"),
    "a model this key may not use": (Fault(status=403, code="model_not_found"), "EMBEDDING_MODEL"),
    "a wrong path": (Fault(status=404), "/v1"),
    "a web page in its place": (Fault(status=405), "/v1"),
    "a proxy that wants a password": (Fault(status=407), "OPENAI_BASE_URL"),
    "refused dimensions": (Fault(status=400, param="dimensions"), "EMBEDDING_DIMENSIONS"),
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_a_configuration_error_names_the_setting_and_is_not_retried(
    api: LoopbackAPI, name: str
) -> None:
    fault, setting = CONFIGURATION[name]
    api.faults = [fault]
    with pytest.raises(ConfigurationError, match=setting):
        _embedder(api).embed(["a text"])
    assert api.stats.requests == 1


@pytest.mark.parametrize("status", [301, 302])
def test_a_url_that_leads_elsewhere_is_named(api: LoopbackAPI, status: int) -> None:
    api.faults = [Fault(status=status, headers={"location": api.base_url + "/elsewhere"})]
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL leads on"):
        _embedder(api).embed(["a text"])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_input_is_invalid_and_not_retried(api: LoopbackAPI, status: int) -> None:
    api.faults = [Fault(status=status, param="input")]
    with pytest.raises(InvalidInputError):
        _embedder(api).embed(["a text"])
    assert api.stats.requests == 1


def test_neither_key_nor_text_is_in_an_error(api: LoopbackAPI) -> None:
    wrong, text = "sk-wrong-key-987654", "what was said in private"
    with pytest.raises(EmbeddingAssetsError) as caught:
        _embedder(api, api_key=wrong).embed([text])
    shown = "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in (wrong, text):
        assert secret not in shown


def test_half_a_surrogate_pair_is_invalid_input_and_not_sent(api: LoopbackAPI) -> None:
    embedder = _embedder(api)
    text = "said in private \udcff"
    assert embedder.planned_tokens(text) >= len(text)
    with pytest.raises(InvalidInputError) as caught:
        embedder.embed(["a text", text])
    # An encoding error holds the whole text.
    assert caught.value.__context__ is None
    assert api.stats.requests == 0


def test_a_password_in_the_url_is_used_and_not_logged(
    api: LoopbackAPI, caplog: pytest.LogCaptureFixture
) -> None:
    url = api.base_url.replace("://", "://user:p%40ss-word@")
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        _embedder(api, base_url=url).embed(["a text"])  # the server wants the key
    assert api.stats.last_headers["authorization"] == "Basic dXNlcjpwQHNzLXdvcmQ="
    assert "HTTP Request" in caplog.text
    for shown in (caplog.text, str(caught.value)):
        assert "ss-word" not in shown


def test_what_the_client_finds_in_the_environment_changes_neither_server_nor_account(
    api: LoopbackAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-another")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-another")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another\nX-Team: blue")
    assert _embedder(api).embed(["a text"]).requests == 1
    assert "another" not in str(api.stats.last_headers)
    assert api.stats.last_headers["x-team"] == "blue"
    assert OpenAIEmbedder(api_key=KEY).price_per_million_tokens == 0.02


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80/v1",
        "http://",
        "ftp://127.0.0.1/v1",
        "http://user:s3cret/x@127.0.0.1/v1",
        "http://[::1/v1",
    ],
)
def test_a_url_that_is_none_is_named_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL") as caught:
        OpenAIEmbedder(api_key=KEY, base_url=url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("key", ["sk-two lines\nof it", "sk-two parts", "sk-quote\u2019"])
def test_a_key_that_can_be_none_is_named_and_not_quoted(key: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY") as caught:
        OpenAIEmbedder(api_key=key)
    assert "sk-" not in str(caught.value)


def test_spaces_around_key_and_url_do_not_matter(api: LoopbackAPI) -> None:
    embedder = _embedder(api, api_key=f" {KEY}\n", base_url=f" {api.base_url}/ \n")
    assert embedder.embed(["a text"]).requests == 1


def test_unknown_models_get_batches_that_small_servers_take(api: LoopbackAPI) -> None:
    assert _embedder(api, model="own", dimensions=1536).limits.max_inputs == 32
    assert _embedder(api).limits.max_inputs == 2_048


def test_only_a_known_model_is_asked_for_dimensions(api: LoopbackAPI) -> None:
    # The server would shorten its vectors.
    with pytest.raises(ConfigurationError, match="1536"):
        _embedder(api, model="own", dimensions=256).embed(["a text"])


def test_vectors_of_another_length_name_the_setting(api: LoopbackAPI) -> None:
    embedder = _embedder(api, model="own", dimensions=768)
    with pytest.raises(ConfigurationError, match="1536"):
        embedder.embed(["a text"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "0.0"])
def test_a_vector_that_is_no_direction_is_refused(api: LoopbackAPI, number: str) -> None:
    vector = ",".join([number] * 1536)
    api.faults = [Fault(body=f'{{"data":[{{"index":0,"embedding":[{vector}]}}]}}'.encode())]
    with pytest.raises(InvalidInputError):
        _embedder(api).embed(["a text"])


def test_a_missing_key_and_unknown_dimensions_are_named() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder(api_key="")
    with pytest.raises(ConfigurationError, match="EMBEDDING_DIMENSIONS"):
        OpenAIEmbedder(api_key=KEY, model="own")
    with pytest.raises(ConfigurationError, match="EMBEDDING_DIMENSIONS"):
        OpenAIEmbedder(api_key=KEY, model="text-embedding-ada-002", dimensions=256)
    with pytest.raises(ConfigurationError, match="1536 at most"):
        OpenAIEmbedder(api_key=KEY, dimensions=3072)


def test_prices_are_openais_only_at_openai() -> None:
    assert OpenAIEmbedder(api_key=KEY).price_per_million_tokens == 0.02
    elsewhere = OpenAIEmbedder(api_key=KEY, base_url="http://127.0.0.1:1/v1")
    assert elsewhere.price_per_million_tokens is None
