"""Keys, questions and what was said are in no log, event, error, alert or list of processes."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from embedding_assets_tests.checkout import Checkout, short_folder
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI
from embedding_assets_tests.loopback_fathom import LoopbackFathom

pytestmark = pytest.mark.slow

KEY, FATHOM_KEY, WEBHOOK = "sk-canarykey7731", "canaryfathom7732", "whsec_Y2FuYXJ5d2ViaG9vaw=="
QUESTION, WORD, TITLE, NAME = "canaryquestion", "canaryword", "canarytitle", "canaryname"
CANARIES = (KEY, FATHOM_KEY, WEBHOOK, QUESTION, WORD, TITLE, NAME)
# Where what was said and is known belongs; everything else is Dagster's, or a log.
ITS_PLACE = {"base", "pg_wal"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("canaries") as folder:
        yield folder


def test_no_canary_gets_out(folder: Path) -> None:
    told: list[str] = []  # all that commands print, but for the answers of a search
    seen: set[str] = set()  # in the list of processes
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or ()))

    with (
        LoopbackAPI(dimensions=64) as api,
        LoopbackFathom([FATHOM_KEY]) as fathom,
    ):
        cli = Checkout(
            folder / "checkout",
            EMBEDDING_ASSETS_HOME=str(folder / "home"),
            EMBEDDING_PROVIDER="openai",
            EMBEDDING_DIMENSIONS="64",
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=api.base_url,
            FATHOM_API_KEYS=f"ann={FATHOM_KEY}",
            FATHOM_BASE_URL=fathom.base_url,
            FATHOM_WEBHOOK_SECRETS=WEBHOOK,
            RETENTION_DAYS="36500",
        )

        def command(*arguments: str, given: str | None = None, code: int = 0) -> str:
            result = cli(*arguments, given=given, code=code)
            told.append(result.stderr)
            return result.stdout

        def job(name: str, *, code: int = 0) -> None:
            result = cli.run(
                "dagster", "job", "execute", "-m", "embedding_assets.definitions", "-j", name,
                code=code,
            )  # fmt: skip
            told.extend([result.stdout, result.stderr])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            told.append(command("init"))
            said = {"speaker": NAME, "text": f"The {WORD} is in the depot."}
            bad = {"speaker": NAME, "text": f"The {WORD} is unacceptable."}
            lines = [
                {"recording_id": "c1", "title": TITLE, "segments": [said]},
                {"recording_id": "c2", "title": TITLE, "segments": [bad]},
                {"recording_id": "c3", "title": TITLE, "segments": f"{WORD} {NAME}"},
                {"recording_id": WORD.replace("canary", "c") + ",", "title": TITLE, "segments": []},
            ]
            told.append(command("import", "-", given="\n".join(map(json.dumps, lines)), code=1))
            told.append(command("import", "-", given=f'{{"{WORD}": "{WORD}" "{NAME}"', code=1))
            fathom.add("77", fathom.now, f"The {WORD} again.", title=TITLE)
            fathom.add("78", fathom.now, f"The {WORD} again.", recording_id=f"{WORD},")
            job("sync_fathom")
            fathom.refused = {FATHOM_KEY}
            job("sync_fathom", code=1)
            api.faults = [Fault(status=400, param="input", when=lambda t: "unacceptable" in str(t))]
            job("embed_recordings", code=1)
            said = {"speaker": NAME, "text": f"The {WORD} is late."}
            late = {"recording_id": "c5", "title": TITLE, "segments": [said]}
            told.append(command("import", "-", given=json.dumps(late)))
            api.faults = [Fault(status=401)]
            told.append(command("run", code=2))
            api.faults = []
            answer = command("search", "-", given=f"{QUESTION} depot\n")
            assert WORD in answer  # an answer is for whoever asked
            api.faults = [Fault(status=500)]
            command("search", "-", given=f"{QUESTION} depot\n")
            api.faults = []
            told.append(command("search", "-", "--mode", "semantic", given="\n", code=1))
            for name in ("check_health", "snapshot_health", "forget_old_calls", "sweep_vectors"):
                job(name)
            # What alerts, checks and the trend are made of.
            told.append(command("monitor", "--json", code=2))
            told.append(command("status"))
            told.append(command("forget", "--recording", "c2", "--yes"))
            dagster_url = command("url").strip().replace("/embedding_assets?", "/dagster?")
            with psycopg.connect(dagster_url) as connection:
                tables = connection.execute(
                    "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                ).fetchall()
                dagster = [
                    str(connection.execute(f"SELECT * FROM {table}").fetchall())  # type: ignore[arg-type]  # noqa: S608
                    for (table,) in tables
                ]
            assert any("c1" in each for each in dagster)
        finally:
            ended.set()
            watcher.join()
            cli("stop")
    files = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not ITS_PLACE & set(path.parts) and path.suffix != ".pyc"
    }
    assert any("storage" in path.parts for path in files)  # where compute logs are
    places = {
        "what commands print": "\n".join(told),
        "the list of processes": "\n".join(seen),
        "Dagster's storage": "\n".join(dagster),
        **{str(path): data.decode(errors="replace") for path, data in files.items()},
    }
    found = {
        place: [canary for canary in CANARIES if canary in text] for place, text in places.items()
    }
    assert {place: canaries for place, canaries in found.items() if canaries} == {}
