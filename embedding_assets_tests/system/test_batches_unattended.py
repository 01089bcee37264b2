"""A hundred recordings through the batch lane, by the daemon alone."""

import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from embedding_assets.engine.database import Database
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets.server.connections import APPLICATION_DATABASE
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.loopback_batches import LoopbackBatches
from embedding_assets_tests.machine import need
from embedding_assets_tests.system.conftest import DIMENSIONS, FLAGS, development

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RECORDINGS = 100


@dataclass
class Unattended:
    """A running daemon, the database, and the provider's server."""

    port: int
    checkout: Checkout
    database: Database
    api: LoopbackAPI
    batches: LoopbackBatches


@pytest.fixture
def unattended() -> Iterator[Unattended]:
    """A daemon that finds everything to do by itself; it ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="ea-batch-"))
    folder.chmod(0o711)  # as root, the server's user must get to its data
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        api.batches = batches = LoopbackBatches(steps=("validating", "completed"))
        checkout = Checkout(
            folder,
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=api.base_url,
            BATCH_FROM_TOKENS="1000",
            EMBED_IN_BATCHES_CRON="* * * * *",
            EMBED_PENDING_CRON="* * * * *",
        )
        checkout("init")
        home = folder / ".local"
        with (home / "recordings.jsonl").open("w", encoding="utf-8") as file:
            write_jsonl(generate(RECORDINGS, 0, 0), file)
        checkout("import", home / "recordings.jsonl")
        server = EmbeddedPostgres(home)
        try:
            with (
                development(checkout) as port,
                Database(server.url(APPLICATION_DATABASE)) as database,
            ):
                yield Unattended(port, checkout, database, api, batches)
        finally:
            checkout("stop")
            shutil.rmtree(folder)


def test_a_first_import_goes_through_a_batch_by_the_daemon_alone(unattended: Unattended) -> None:
    query = "SELECT count(*) FROM embedding_queue WHERE status = 'completed'"
    deadline = time.monotonic() + 420
    while rows(unattended.database, query) != [(RECORDINGS,)]:
        assert time.monotonic() < deadline, "not within seven minutes"
        time.sleep(2)
    assert unattended.api.stats.requests == 0  # not one request but those of the batch
    assert unattended.batches.created >= 1
    assert unattended.api.stats.sent_twice == []
    spent = rows(
        unattended.database,
        "SELECT lane, sum(tokens) AS tokens FROM embedding_attempts WHERE tokens > 0 GROUP BY 1",
    )
    assert spent == [("batch", unattended.batches.tokens)]
    assert "batch" in unattended.checkout("monitor", code=0).stdout
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("Chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        try:
            _look(unattended, page)
        finally:
            browser.close()


def _look(unattended: Unattended, page: Page) -> None:
    """A person opens the log of the run that collected the answers."""
    url = f"http://127.0.0.1:{unattended.port}"
    page.goto(f"{url}/runs/{_collecting_run(url)}", wait_until="domcontentloaded")
    page.get_by_text("texts embedded").first.wait_for(timeout=60_000)


def _collecting_run(url: str) -> str:
    query = """{ runsOrError(filter: {pipelineName: "embed_in_batches"}) { ... on Runs {
        results { runId eventConnection { events { ... on MessageEvent { message } } } } } } }"""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(  # noqa: S310  (our own webserver)
        f"{url}/graphql", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        runs = json.load(answer)["data"]["runsOrError"]["results"]
    for run in runs:
        messages = [event.get("message", "") for event in run["eventConnection"]["events"]]
        if any("texts embedded" in message for message in messages):
            return str(run["runId"])
    raise AssertionError("no run says that it collected answers")
