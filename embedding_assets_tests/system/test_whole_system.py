"""The system as it runs unattended: daemon, schedules, sensors, workers, failures, one kill."""

import json
import os
import re
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from embedding_assets.engine.database import Database
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets.server.connections import APPLICATION_DATABASE
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import Checkout
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI
from embedding_assets_tests.machine import need
from embedding_assets_tests.system.conftest import DIMENSIONS, FLAGS, development, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECORDINGS = 200
POISON = "zanzibarian"  # the API refuses it for ever
FRAIL = "quixotically"  # the API fails on it at first


@dataclass
class System:
    """A running `dagster dev` with its daemon, and what it works on."""

    api: LoopbackAPI
    database: Database
    port: int
    poisoned: str
    spoilt: str
    frail: list[str]
    killed_run: str = ""
    screenshots: Path = field(default_factory=Path)

    def graphql(self, query: str, **variables: Any) -> Any:
        """The webserver's answer to a query."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            body = json.load(answer)
        assert "errors" not in body, body
        return body["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first."""
        query = """{ runsOrError(limit: 500) { ... on Runs {
            results { runId jobName status tags { key value } } } } }"""
        runs = self.graphql(query)["runsOrError"]["results"]
        for run in runs:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return list(runs)

    def pid(self, run_id: str) -> int:
        """The process that executes a run, as its event log tells; 0 before it says so."""
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run {
            eventConnection { events { ... on MessageEvent { message } } } } } }"""
        run = self.graphql(query, id=run_id)["runOrError"]
        text = "\n".join(event["message"] for event in run["eventConnection"]["events"])
        found = re.search(r"\(pid: (\d+)\)", text)
        return int(found[1]) if found else 0

    def statuses(self) -> dict[str, int]:
        """Recordings by state."""
        query = "SELECT status, count(*) FROM embedding_queue GROUP BY status"
        return {row[0]: row[1] for row in rows(self.database, query)}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """200 recordings, imported into a system that runs already; everything ends with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ea-system-"))
    folder.chmod(0o711)  # as root, the server's user must get to its data
    with LoopbackAPI(dimensions=DIMENSIONS, latency=4.0) as api:
        checkout = Checkout(
            folder,
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS=str(DIMENSIONS),
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=api.base_url,
            EMBED_PENDING_CRON="* * * * *",
            LEASE_SECONDS="15",
        )
        checkout("init")
        server = EmbeddedPostgres(folder / ".local")
        try:
            with (
                development(checkout) as port,
                Database(server.url(APPLICATION_DATABASE)) as database,
            ):
                recordings = [recording.recording_id for recording in generate(RECORDINGS, 0, 9)]
                running = System(
                    api, database, port, recordings[7], recordings[30], recordings[20:25]
                )
                running.screenshots = tmp_path_factory.mktemp("screenshots")
                until("the webserver", lambda: _answers(running))
                _import(checkout, running)
                yield running
        finally:
            checkout("stop")
            shutil.rmtree(folder)


def _answers(system: System) -> bool:
    try:
        return bool(system.graphql("{ version }"))
    except OSError:
        return False


def _import(checkout: Checkout, system: System) -> None:
    """Imports the recordings, with words in some that the API has its troubles with."""
    system.api.faults = [
        Fault(status=400, param="input", when=lambda texts: any(POISON in t for t in texts)),
        # One request with it fails for good: the six times that a run asks. With the kill, a
        # recording has failed twice then, and a third time would make it a dead letter.
        Fault(status=500, times=6, when=lambda texts: any(FRAIL in t for t in texts)),
    ]
    path = checkout.folder / "calls.jsonl"
    with path.open("w") as file:
        write_jsonl(generate(RECORDINGS, 0, 9), file)
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        word = {system.poisoned: POISON, **dict.fromkeys(system.frail, FRAIL)}.get(
            str(record["recording_id"])
        )
        if word:
            record["segments"][3]["text"] += f" {word}"
            lines[number] = json.dumps(record)
    path.write_text("\n".join(lines))
    checkout("import", path)


@pytest.fixture(scope="module")
def page(system: System) -> Iterator[Page]:
    chromium = need("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def _look(system: System, page: Page, name: str, path: str, texts: list[str]) -> None:
    """Opens a page, waits for what it must say, and keeps a picture of it."""
    page.goto(f"http://127.0.0.1:{system.port}{path}", wait_until="domcontentloaded")
    for text in texts:
        page.get_by_text(text).first.wait_for()
    page.screenshot(path=system.screenshots / f"{name}.png")


def test_1_a_killed_worker_is_replaced_and_reported(system: System) -> None:
    def working() -> str:
        query = "SELECT DISTINCT claimed_by FROM embedding_queue WHERE status = 'processing'"
        holders = [row[0] for row in rows(system.database, query)]
        return next((holder for holder in holders if system.pid(holder)), "")

    system.killed_run = until("a worker with claims", working)
    held = rows(
        system.database,
        "SELECT recording_id FROM embedding_queue WHERE claimed_by = %s",
        [system.killed_run],
    )
    os.kill(system.pid(system.killed_run), signal.SIGKILL)
    system.api.latency = 0.05
    until(
        "what it held is taken over and ended",
        lambda: rows(
            system.database,
            "SELECT 1 FROM embedding_attempts WHERE run_id = %s AND error_kind = 'crashed'",
            [system.killed_run],
        ),
    )
    assert held
    until(
        "its run is reported failed",
        lambda: any(
            run["runId"] == system.killed_run and run["status"] == "FAILURE"
            for run in system.runs()
        ),
    )


def test_2_every_recording_ends_completed_or_as_a_dead_letter_with_its_reason(
    system: System,
) -> None:
    until(
        "every recording is completed or given up",
        lambda: system.statuses() == {"completed": RECORDINGS - 1, "dead_letter": 1},
        seconds=420,
    )
    ((dead, kind, error),) = rows(
        system.database,
        "SELECT recording_id, error_kind, last_error FROM embedding_queue"
        " WHERE status = 'dead_letter'",
    )
    assert (dead, kind) == (system.poisoned, "invalid_input")
    assert POISON not in error
    incomplete = rows(
        system.database,
        "SELECT q.recording_id FROM embedding_queue q LEFT JOIN transcript_chunks c"
        " USING (recording_id) LEFT JOIN chunk_embeddings e USING (content_hash)"
        " WHERE q.status = 'completed' GROUP BY q.recording_id, q.chunk_count"
        " HAVING count(e.id) <> q.chunk_count OR max(c.chunk_index) + 1 <> q.chunk_count",
    )
    assert incomplete == []


def test_3_what_failed_was_launched_again_with_small_batches(system: System) -> None:
    again = [run for run in system.runs() if "embedding_assets/relaunch_of" in run["tags"]]
    assert again
    lanes = rows(
        system.database,
        "SELECT DISTINCT lane FROM embedding_attempts WHERE run_id = ANY(%s)",
        [[run["runId"] for run in again]],
    )
    assert lanes == [("small_batch",)]
    # A worker for many, or a run of its partition for each of few; never twice for one run.
    partitions = [
        (run["tags"]["embedding_assets/relaunch_of"], run["tags"].get("dagster/partition"))
        for run in again
    ]
    assert len(partitions) == len(set(partitions))


def test_4_work_was_done_by_a_handful_of_workers(system: System) -> None:
    workers = [run for run in system.runs() if run["jobName"] == "embed_recordings"]
    assert len(workers) <= 25


def _backfill(system: System, keys: list[str]) -> str:
    """Launches what the button "Materialize" launches, and waits for its end."""
    launched = system.graphql(
        """mutation($keys: [String!]!) { launchPartitionBackfill(backfillParams: {
            assetSelection: [{path: ["transcript_chunks"]}], partitionNames: $keys
        }) { ... on LaunchBackfillSuccess { backfillId } } }""",
        keys=keys,
    )["launchPartitionBackfill"]["backfillId"]
    query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
        ... on PartitionBackfill { status } } }"""

    def ended() -> str:
        backfill = system.graphql(query, id=launched)["partitionBackfillOrError"]
        status = str(backfill["status"])
        return status if status.startswith("COMPLETED") else ""

    return until("the backfill", ended, seconds=300)


def _failed_partitions(system: System) -> int:
    query = """{ assetNodeOrError(assetKey: {path: ["transcript_chunks"]}) {
        ... on AssetNode { partitionStats { numFailed } } } }"""
    return int(system.graphql(query)["assetNodeOrError"]["partitionStats"]["numFailed"])


def test_5_a_partition_that_fails_is_launched_again_and_shows_it(
    system: System, page: Page
) -> None:
    spoilt = system.spoilt
    with system.database.transaction() as connection:
        # No trigger tells the workers: only the backfill takes it.
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(
            "UPDATE fathom_transcripts SET edited_text = %s"
            " WHERE recording_id = %s AND position = 5",
            [f"This is {POISON}.", spoilt],
        )
    assert _backfill(system, [spoilt]) == "COMPLETED_FAILED"
    (failed,) = [run for run in system.runs() if "dagster/backfill" in run["tags"]]
    again = until(
        "its re-launch",
        lambda: [
            run
            for run in system.runs()
            if run["tags"].get("embedding_assets/relaunch_of") == failed["runId"]
            and run["status"] == "FAILURE"
        ],
    )
    assert [(run["jobName"], run["tags"]["dagster/partition"]) for run in again] == [
        ("embed_recording", spoilt)
    ]
    # The poisoned one may have been launched again as its partition, too.
    failed_partitions = until("a failed partition", lambda: _failed_partitions(system))
    told = f"Failed ({failed_partitions})"
    _look(system, page, "failed", "/assets/transcript_chunks?view=partitions", [told])


def test_6_a_backfill_of_all_partitions_finishes(system: System) -> None:
    node = '{ assetNodeOrError(assetKey: {path: ["transcript_chunks"]}) { ... on AssetNode '
    keys = system.graphql(node + "{ partitionKeys } } }")["assetNodeOrError"]["partitionKeys"]
    assert len(keys) == RECORDINGS
    system.api.faults = []
    before = sum(system.api.stats.inputs.values())
    assert _backfill(system, keys) == "COMPLETED_SUCCESS"
    # All but the two that the API refused had their vectors.
    sent = sum(system.api.stats.inputs.values()) - before
    ((refused,),) = rows(
        system.database,
        "SELECT sum(chunk_count) FROM embedding_queue WHERE recording_id = ANY(%s)",
        [[system.poisoned, system.spoilt]],
    )
    assert sent <= refused
    assert system.statuses() == {"completed": RECORDINGS}


def _launch(system: System, job: str) -> str:
    """Launches a job as its page does; gives the run."""
    launched = system.graphql(
        """mutation($selector: JobOrPipelineSelector!) { launchRun(executionParams: {
            selector: $selector, runConfigData: {}
        }) { ... on LaunchRunSuccess { run { runId } } } }""",
        selector={
            "repositoryName": "__repository__",
            "repositoryLocationName": "embedding_assets.definitions",
            "jobName": job,
        },
    )
    return str(launched["launchRun"]["run"]["runId"])


def test_7_health_is_checked_and_kept(system: System, page: Page) -> None:
    launched = {_launch(system, "check_health"), _launch(system, "snapshot_health")}

    def succeeded() -> bool:
        ended = {run["runId"] for run in system.runs() if run["status"] == "SUCCESS"}
        return launched <= ended

    until("both runs", succeeded)
    # The picture is drawn by the page, not only linked.
    _look(system, page, "health", "/assets/embedding_health?view=overview", ["completion_percent"])
    page.get_by_text("Show Markdown").first.click()
    image = page.locator("img[src^='data:image/png']").first
    image.wait_for()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.screenshot(path=system.screenshots / "trends.png")


PAGES = {
    "checks": (
        "/assets/transcript_chunks?view=checks&checkDetail=dead_letters",
        ["Checks (14)", "chunk_integrity", "waiting_for_person"],
    ),
    "asset": ("/assets/transcript_chunks?view=partitions", ["transcript_chunks", "Materialized"]),
    "runs": ("/runs", ["embed_recordings", "relaunch_failed"]),
    "automation": (
        "/automation",
        [
            "embed_pending",
            "discover_recordings",
            "recover_dead_letters",
            "sweep_vectors",
            "check_health",
            "snapshot_health",
        ],
    ),
    "schedule": (
        "/locations/embedding_assets.definitions/schedules/embed_pending",
        ["Starts workers while something is due"],
    ),
    "sensor": (
        "/locations/embedding_assets.definitions/sensors/relaunch_failed_recordings",
        ["Launches again, with small batches"],
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_8_the_pages_show_it(system: System, page: Page, name: str) -> None:
    path, texts = PAGES[name]
    _look(system, page, name, path, texts)
