"""The command, as a person or a script types it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from embedding_assets.cli import main
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets_tests.checkout import Checkout, short_folder
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

DIMENSIONS = 64
KEY = "sk-very-secret"
MARKER = "unacceptable"
PROMISED = {
    "success",
    "worker_id",
    "processed",
    "failed",
    "chunks_created",
    "duration_ms",
    "pending_remaining",
}
VTT = """WEBVTT

1
00:00:01.000 --> 00:00:04.000
Ann: The walrus eats forty kilos of clams every day.

2
00:00:04.500 --> 00:00:06.000
Bo: That is a lot of clams for one walrus.
"""


@pytest.fixture(scope="module")
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield api


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that the server's user may reach."""
    with short_folder("cli") as folder:
        yield folder


@pytest.fixture(scope="module")
def cli(folder: Path, api: LoopbackAPI) -> Iterator[Checkout]:
    """The command in a checkout of its own, with the loopback API as its model."""
    cli = Checkout(
        folder / "checkout",
        EMBEDDING_ASSETS_HOME=str(folder / "home"),
        EMBEDDING_PROVIDER="openai",
        EMBEDDING_DIMENSIONS=str(DIMENSIONS),
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=api.base_url,
    )
    try:
        cli("init")
        yield cli
    finally:
        cli("stop")


def _json(cli: Checkout, *arguments: str | Path, **options: Any) -> Any:
    return json.loads(cli(*arguments, "--json", **options).stdout)


def _record(recording_id: str, *texts: str) -> str:
    segments = [
        {"speaker": ("Ann", "Bo")[n % 2], "start": n * 5, "end": n * 5 + 4, "text": text}
        for n, text in enumerate(texts)
    ]
    record = {"recording_id": recording_id, "title": f"Call {recording_id}", "segments": segments}
    return json.dumps({**record, "recorded_at": "2026-10-01T09:00:00Z"}) + "\n"


@pytest.mark.parametrize("command", [(), *((name,) for name in main.commands)])
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    usage, _, rest = result.output.partition("\n\n")
    assert usage.startswith("Usage: ")
    explanation, _, _ = rest.partition("\n\nOptions:")
    assert len(explanation.split()) >= 5


def test_the_help_says_what_the_exit_codes_mean(cli: Checkout) -> None:
    text = " ".join(cli("--help").stdout.split())
    assert "Exit codes: 0 done; 1 something failed or was rejected; 2 a setting" in text


def test_a_first_session(cli: Checkout, api: LoopbackAPI, folder: Path) -> None:
    recordings = folder / "recordings"
    recordings.mkdir()
    with (recordings / "calls.jsonl").open("w") as stream:
        write_jsonl(generate(3, 0, 1), stream)
    (recordings / "zoo.vtt").write_text(VTT)
    imported = _json(cli, "import", recordings)
    assert (imported["imported"], imported["unchanged"], imported["rejected"]) == (4, 0, [])

    summary = _json(cli, "run")
    assert summary.keys() >= PROMISED
    assert summary["success"] is True
    assert (summary["processed"], summary["failed"], summary["pending_remaining"]) == (4, 0, 0)
    assert summary["chunks_created"] == summary["chunks_embedded"] > 4
    assert summary["duration_ms"] > 0

    hits = _json(cli, "search", "walrus forty kilos clams", "--limit", "2")
    assert len(hits) == 2
    best = hits[0]
    assert "forty kilos of clams" in best["text"]
    assert best["speakers"] == ["Ann", "Bo"]
    assert (best["start_seconds"], best["end_seconds"]) == (1.0, 6.0)
    assert best["similarity"] > hits[1]["similarity"]
    in_one = _json(cli, "search", "clams", "--recording", hits[1]["recording_id"])
    assert {hit["recording_id"] for hit in in_one} == {hits[1]["recording_id"]}
    shown = cli("search", "the walrus with its forty kilos of clams").stdout
    assert "forty kilos of clams" in shown
    assert best["recording_id"] in shown
    assert "Ann" in shown

    status = _json(cli, "status")
    assert status["by_status"]["completed"] == status["recordings"] == 4
    assert status["chunks"] == summary["chunks_created"]
    assert (status["due"], status["latest_failures"]) == (0, [])
    assert status["model"] == f"openai/text-embedding-3-small/{DIMENSIONS}"

    requests = api.stats.requests
    again = _json(cli, "import", recordings)
    assert (again["imported"], again["unchanged"]) == (0, 4)
    summary = _json(cli, "run")
    assert (summary["success"], summary["processed"], summary["chunks_created"]) == (True, 0, 0)
    assert "nothing to embed" in cli("run").stdout
    assert api.stats.requests == requests
    assert api.stats.sent_twice == []


def test_bad_input_is_reported_with_its_place_and_the_rest_is_imported(
    cli: Checkout, folder: Path
) -> None:
    path = folder / "mixed.jsonl"
    path.write_text(
        _record("good-1", "Hello.")
        + "{ this is no JSON\n"
        + '{"recording_id": "bad-1", "title": "x"}\n'
        + _record("good-2", "Hello again.")
    )
    result = cli("import", path, "--json", code=1)
    report = json.loads(result.stdout)
    assert report["imported"] == 2
    places = [rejection["place"] for rejection in report["rejected"]]
    assert places == [f"{path}:2", f"{path}:3"]
    assert all(rejection["reason"] for rejection in report["rejected"])
    shown = cli("import", path, code=1)
    assert "0 imported, 2 unchanged, 2 rejected" in shown.stdout
    assert f"{path}:2" in shown.stderr
    cli("import", folder / "no-such-file.jsonl", code=1)


def test_recordings_can_be_piped_in(cli: Checkout) -> None:
    report = _json(cli, "import", "-", given=_record("piped", "Hello from a pipe."))
    assert report["imported"] == 1


def test_a_failed_recording_is_exit_code_1_and_shows_in_the_status(
    cli: Checkout, api: LoopbackAPI
) -> None:
    cli("import", "-", given=_record("refused", MARKER) + _record("accepted", "Fine."))
    fault = Fault(
        status=400, param="input", when=lambda inputs: any(MARKER in text for text in inputs)
    )
    api.faults = [fault]
    try:
        result = cli("run", "--json", code=1)
    finally:
        api.faults = []
    summary = json.loads(result.stdout)
    assert (summary["success"], summary["failed"]) == (False, 1)
    assert summary["processed"] >= 1
    assert summary["pending_remaining"] == 1
    assert "refused: invalid_input: " in summary["error"]
    assert MARKER not in result.stdout + result.stderr
    (failure,) = _json(cli, "status")["latest_failures"]
    assert (failure["recording_id"], failure["error_kind"]) == ("refused", "invalid_input")
    # Not left to its back-off: it would be embedded in the middle of another test.
    assert _json(cli, "retry", "refused")["queued"] == ["refused"]
    assert _json(cli, "run")["processed"] == 1


CONFIGURATION = {
    "no key": ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
    "an unknown provider": ({"EMBEDDING_PROVIDER": "astrology"}, "EMBEDDING_PROVIDER"),
    "dimensions that are no number": ({"EMBEDDING_DIMENSIONS": "many"}, "EMBEDDING_DIMENSIONS"),
    "another model": ({"EMBEDDING_MODEL": "text-embedding-3-large"}, "switch-model"),
}


@pytest.mark.parametrize("case", CONFIGURATION)
def test_a_wrong_setting_is_exit_code_2_and_is_named(cli: Checkout, case: str) -> None:
    environment, named = CONFIGURATION[case]
    result = cli("run", code=2, env=environment)
    assert named in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_refused_key_is_exit_code_2_and_is_not_shown(cli: Checkout, api: LoopbackAPI) -> None:
    cli("import", "-", given=_record("unpaid", "Something new to embed."))
    api.faults = [Fault(status=401, code="invalid_api_key")]
    try:
        result = cli("run", code=2)
    finally:
        api.faults = []
    assert "OPENAI_API_KEY" in result.stderr
    assert KEY not in result.stdout + result.stderr
    assert _json(cli, "status")["by_status"]["pending"] >= 1
    assert _json(cli, "run")["processed"] >= 1


@pytest.mark.parametrize(
    "arguments", [("fly",), ("search",), ("import",), ("search", "x", "--limit", "0")]
)
def test_a_wrong_argument_is_exit_code_2(cli: Checkout, arguments: tuple[str, ...]) -> None:
    assert "Usage: " in cli(*arguments, code=2).stderr


def test_a_server_that_is_away_is_exit_code_1_and_its_password_is_not_shown(
    cli: Checkout,
) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/calls"
    result = cli("status", code=1, env={"DATABASE_URL": url})
    assert "DATABASE_URL" in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


def test_a_database_without_the_schema_is_exit_code_2_and_names_the_mend(cli: Checkout) -> None:
    url = cli("url").stdout.strip()
    other = url.replace("/embedding_assets?", "/postgres?")
    assert other != url
    result = cli("status", code=2, env={"DATABASE_URL": other})
    assert "embedding-assets init" in result.stderr


def test_a_server_of_ones_own_is_not_stopped(cli: Checkout) -> None:
    url = cli("url").stdout.strip()
    assert "DATABASE_URL" in cli("stop", code=2, env={"DATABASE_URL": url}).stderr
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_url_is_all_that_psql_needs_and_no_port_is_open(cli: Checkout) -> None:
    with psycopg.connect(cli("url").stdout.strip()) as connection:
        assert connection.execute("SELECT count(*) FROM embedding_models").fetchone() is not None
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_two_homes_do_not_disturb_one_another(cli: Checkout, folder: Path) -> None:
    before = _json(cli, "status")["by_status"]
    second = {"EMBEDDING_ASSETS_HOME": str(folder / "second")}
    try:
        cli("init", env=second)
        cli("import", "-", given=_record("only-here", "A secret of the second home."), env=second)
        assert _json(cli, "status", env=second)["recordings"] == 1
        assert _json(cli, "status")["by_status"] == before
    finally:
        assert "stopped" in cli("stop", env=second).stdout
    with psycopg.connect(cli("url").stdout.strip()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_what_is_stopped_starts_again_when_it_is_needed(cli: Checkout) -> None:
    before = _json(cli, "status")["by_status"]
    assert "stopped" in cli("stop").stdout
    assert "was not running" in cli("stop").stdout
    assert _json(cli, "status")["by_status"] == before


def test_retry_says_what_it_queued_and_now_runs_it(cli: Checkout, folder: Path) -> None:
    path = folder / "again.jsonl"
    path.write_text(_record("again-1", "The heron stands in the shallow water."))
    cli("import", path)
    cli("run")
    assert _json(cli, "retry", "again-1") == {"queued": [], "run": None}
    assert _json(cli, "retry", "again-1", "--force")["queued"] == ["again-1"]
    cli("run")
    done = _json(cli, "retry", "again-1", "--force", "--now")
    assert (done["run"]["processed"], done["run"]["success"]) == (1, True)
    assert done["run"]["chunks_embedded"] == 0
    cli("retry", code=2)


def test_both_models_are_shown_side_by_side_and_nothing_is_switched(
    cli: Checkout, tmp_path: Path
) -> None:
    cli("import", "-", given=_record("judged", "We ship the purple drums to Arles in May."))
    cli("run")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "purple drums", "recording_id": "judged"}))
    environment = {"EMBEDDING_MODEL": "text-embedding-3-large"}
    live = _json(cli, "status")["model"]
    result = cli("switch-model", "--evaluate", questions, env={**environment, "COLUMNS": "200"})
    models = [line.split()[1] for line in result.stdout.splitlines() if "semantic" in line]
    assert [name.rsplit("/", 1)[0] for name in models] == [
        live.rsplit("/", 1)[0], "openai/text-embedding-3-large",
    ]  # fmt: skip
    assert f"search reads {live}" in result.stdout
    assert "to switch to openai/text-embedding-3-large" in result.stdout
    assert _json(cli, "status")["model"] == live
    assert "0 chunks embedded" in cli("switch-model", env=environment).stdout
    assert _json(cli, "status")["model"].startswith("openai/text-embedding-3-large")
    cli("switch-model")


def test_an_estimate_is_what_it_then_costs_and_changes_nothing(
    cli: Checkout, api: LoopbackAPI, tmp_path: Path
) -> None:
    cli("run")
    path = tmp_path / "calls.jsonl"
    said = " ".join(f"We counted {n} crates of quinces in the northern store." for n in range(400))
    path.write_text(_record("estimated", said) + "\n" + "{")
    before = api.stats.requests
    result = cli("estimate", path, "--json")
    told = json.loads(result.stdout)
    assert "not counted: " in result.stderr  # the line that is no recording
    assert told["recordings"] == 1
    assert told["new_chunks"] == told["chunks"] > 1
    assert _json(cli, "estimate")["recordings"] == 0  # nothing was imported
    cli("import", "-", given=_record("estimated", said))
    due = _json(cli, "estimate")
    assert {**due, "seconds": 0} == {**told, "seconds": 0}
    assert api.stats.requests == before
    tokens = api.stats.tokens
    cli("run")
    assert due["tokens"] == pytest.approx(api.stats.tokens - tokens, rel=0.15)
    assert _json(cli, "estimate")["tokens"] == 0
    other = json.loads(cli("estimate", "--model", "text-embedding-3-large", "--json").stdout)
    assert other["model"].startswith("openai/text-embedding-3-large/")
    assert other["chunks"] >= due["chunks"]
    assert "only one of them" in cli("estimate", "--due", path, code=2).stderr
