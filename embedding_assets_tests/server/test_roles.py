"""The roles of deploy/*.sql: each can do its work on somebody else's database, and nothing more."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.sweeping import sweep
from embedding_assets.health.configuration import Expected
from embedding_assets.health.integrity import inspect
from embedding_assets.health.judging import DATABASE_CHECKS, Thresholds, examine
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.checkout import ROOT, Checkout, short_folder
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI
from embedding_assets_tests.loopback_fathom import LoopbackFathom

DIMENSIONS = 64
OWNER, WORKER, SEARCH, IMPORTER, DAGSTER = (
    "embedding_owner",
    "embedding_worker",
    "embedding_search",
    "embedding_importer",
    "embedding_dagster",
)
REFUSED = 2

# As a recorder of somebody else's may have made them: other types, row-level security.
SOURCES = """
CREATE TABLE fathom_calls (recording_id bigint PRIMARY KEY, title text, created_at timestamptz);
CREATE TABLE fathom_transcripts (
    recording_id bigint REFERENCES fathom_calls ON DELETE CASCADE, position integer,
    speaker_name text, start_seconds real, end_seconds real, text text, edited_text text,
    is_deleted boolean, PRIMARY KEY (recording_id, position));
ALTER TABLE fathom_calls ENABLE ROW LEVEL SECURITY;
ALTER TABLE fathom_transcripts ENABLE ROW LEVEL SECURITY;
"""


@dataclass
class Site:
    """A database of somebody else's, with the project's roles in it."""

    server: EmbeddedPostgres
    database: str
    checkout: Checkout

    def url(self, role: str) -> str:
        """How a role connects."""
        return self.server.url(self.database).replace("postgres@", f"{role}@", 1)

    def execute(self, role: str, statement: str, *parameters: object) -> list[Any]:
        """Runs a statement, or a file of them, as this role."""
        with psycopg.connect(self.url(role), autocommit=True) as connection:
            cursor = connection.execute(statement, list(parameters) or None)
            return [] if cursor.description is None else cursor.fetchall()

    def run_file(self, role: str, name: str) -> None:
        """Runs one of deploy's files, whole."""
        self.execute(role, (ROOT / "deploy" / name).read_text())

    def command(
        self,
        role: str,
        *arguments: str,
        code: int = 0,
        given: str | None = None,
        **settings: str,
    ) -> Any:
        """Runs `embedding-assets` with this role's DATABASE_URL."""
        environment = {**self._environment(role), **settings}
        return self.checkout(*arguments, code=code, env=environment, given=given)

    def job(self, role: str, name: str, *, code: int = 0, **settings: str) -> Any:
        """Executes a job of Dagster's with this role's DATABASE_URL."""
        arguments = ["job", "execute", "-m", "embedding_assets.definitions", "-j", name]
        environment = {**self._environment(role), **settings}
        return self.checkout.run("dagster", *arguments, code=code, env=environment)

    def _environment(self, role: str) -> dict[str, str]:
        dagster_url = self.url(DAGSTER).replace("postgresql:", "postgresql+psycopg2:", 1)
        return {"DATABASE_URL": self.url(role), "DAGSTER_PG_URL": dagster_url}

    def call(self, recording_id: int, *texts: str) -> None:
        """What the recorder does."""
        self.execute(
            "administrator", "INSERT INTO fathom_calls VALUES (%s, 'A call', now())", recording_id
        )
        for position, text in enumerate(texts):
            self.execute(
                "administrator",
                "INSERT INTO fathom_transcripts (recording_id, position, speaker_name, text)"
                " VALUES (%s, %s, 'Ann', %s)",
                recording_id,
                position,
                text,
            )

    def statuses(self) -> dict[str, str]:
        """The queue, as its owner sees it."""
        return dict(self.execute(OWNER, "SELECT recording_id, status FROM embedding_queue"))


@pytest.fixture(scope="module")
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS) as api:
        yield api


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that the server's user may reach."""
    with short_folder("roles") as folder:
        yield folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own: roles belong to a whole server. Its administrator is no superuser."""
    server = EmbeddedPostgres(folder / "server")
    server.home.mkdir(mode=0o711)
    try:
        server.ensure_running()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE administrator LOGIN CREATEROLE CREATEDB")
        yield server
    finally:
        server.stop()


def _site(server: EmbeddedPostgres, folder: Path, api: LoopbackAPI, database: str) -> Site:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} OWNER administrator")
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions AUTHORIZATION administrator")
        connection.execute("CREATE EXTENSION vector WITH SCHEMA extensions")
    checkout = Checkout(
        folder / database,
        EMBEDDING_ASSETS_HOME=str(folder / f"{database}-home"),
        EMBEDDING_PROVIDER="openai",
        EMBEDDING_DIMENSIONS=str(DIMENSIONS),
        OPENAI_API_KEY="sk-very-secret",
        OPENAI_BASE_URL=api.base_url,
    )
    return Site(server, database, checkout)


@pytest.fixture(scope="module")
def foreign(server: EmbeddedPostgres, folder: Path, api: LoopbackAPI) -> Site:
    """The recorder's tables are somebody else's, and were there first."""
    site = _site(server, folder, api, "calls")
    site.execute("administrator", SOURCES)
    site.run_file("administrator", "roles.sql")
    site.run_file("administrator", "roles.sql")  # as its head says, it may be run again
    site.command(OWNER, "init")
    site.run_file(OWNER, "grants.sql")
    return site


@pytest.fixture(scope="module")
def own(server: EmbeddedPostgres, folder: Path, api: LoopbackAPI) -> Site:
    """`init` makes the recorder's tables."""
    site = _site(server, folder, api, "ours")
    site.run_file("administrator", "roles.sql")
    site.command(OWNER, "init")
    site.run_file(OWNER, "grants.sql")
    return site


def test_the_worker_embeds_and_the_service_searches(foreign: Site) -> None:
    foreign.call(17, "The walrus eats forty kilos of clams every day.")
    foreign.call(18, "The heron stands in the shallow water.")
    summary = json.loads(foreign.command(WORKER, "run", "--json").stdout)
    assert (summary["processed"], summary["failed"]) == (2, 0)
    hits = json.loads(foreign.command(SEARCH, "search", "walrus clams", "--json").stdout)
    assert hits[0]["recording_id"] == "17"
    assert foreign.command(WORKER, "search", "heron water").stdout.startswith("1. ")


def test_the_worker_retries_withdraws_inspects_and_sweeps(foreign: Site, api: LoopbackAPI) -> None:
    foreign.call(21, "unacceptable")
    api.faults = [Fault(status=400, param="input")]
    try:
        foreign.command(WORKER, "run", code=1)
    finally:
        api.faults = []
    assert foreign.statuses()["21"] == "failed"
    foreign.command(WORKER, "retry", "21", "--now")
    assert foreign.statuses()["21"] == "completed"
    foreign.execute("administrator", "DELETE FROM fathom_calls WHERE recording_id = 21")
    foreign.command(WORKER, "run")
    assert "21" not in foreign.statuses()
    foreign.execute(
        OWNER, "UPDATE chunk_embeddings SET created_at = created_at - interval '2 days'"
    )
    with Database(foreign.url(WORKER)) as database:
        inspect(database)
        assert sweep(database) == 1
    assert foreign.execute(WORKER, "SELECT recording_id FROM integrity_findings") == []


@pytest.mark.parametrize("role", [OWNER, WORKER])
def test_owner_and_worker_see_the_queue_and_its_health(foreign: Site, role: str) -> None:
    assert "by_status" in json.loads(foreign.command(role, "status", "--json").stdout)
    assert json.loads(foreign.command(role, "monitor", "--json").stdout)["status"] == "healthy"
    with Database(foreign.url(role)) as database:
        health = examine(
            database,
            Thresholds(),
            Expected(model=f"openai/text-embedding-3-small/{DIMENSIONS}"),
        )
    assert health.numbers is not None
    assert {finding.name for finding in health.findings} == set(DATABASE_CHECKS)


def test_an_installed_schema_lets_the_worker_pass_init(foreign: Site) -> None:
    assert "up to date" in foreign.command(WORKER, "init").stdout


def test_without_the_tables_owner_an_edit_is_found_by_the_next_run(foreign: Site) -> None:
    foreign.call(31, "Before the edit.")
    foreign.command(WORKER, "run")
    edit = "UPDATE fathom_transcripts SET edited_text = %s WHERE recording_id = 31"
    foreign.execute("administrator", edit, "After the edit, once.")
    assert foreign.statuses()["31"] == "completed"
    foreign.command(WORKER, "run")
    (text,) = foreign.execute(
        SEARCH, "SELECT chunk_text FROM transcript_chunks WHERE recording_id = '31'"
    )
    assert "After the edit, once." in text[0]

    foreign.run_file("administrator", "triggers.sql")
    foreign.execute("administrator", edit, "After the edit, twice.")
    assert foreign.statuses()["31"] == "pending"
    foreign.command(WORKER, "run")


def test_whoever_writes_transcripts_needs_no_right_on_the_queue(foreign: Site) -> None:
    foreign.run_file("administrator", "triggers.sql")
    foreign.execute("administrator", "CREATE ROLE recorder LOGIN")
    foreign.execute("administrator", "GRANT INSERT ON fathom_calls TO recorder")
    foreign.execute(
        "administrator",
        "CREATE POLICY recorder_writes ON fathom_calls FOR INSERT TO recorder WITH CHECK (true)",
    )
    foreign.execute("recorder", "INSERT INTO fathom_calls VALUES (41, 'From the recorder')")
    assert foreign.statuses()["41"] == "pending"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        foreign.execute("recorder", "SELECT * FROM embedding.embedding_queue")


FORBIDDEN = {
    WORKER: (
        "CREATE TABLE anything ()",
        "CREATE TABLE public.anything ()",
        "CREATE INDEX ON chunk_embeddings (created_at)",
        "ALTER TABLE embedding_queue ADD COLUMN anything text",
        "TRUNCATE transcript_chunks",
        "INSERT INTO fathom_calls (recording_id) VALUES (1)",
        "UPDATE fathom_calls SET title = 'x'",
        "DELETE FROM fathom_calls",
        "UPDATE fathom_transcripts SET text = 'x'",
        "DELETE FROM embedding_attempts",
        "UPDATE embedding_attempts SET cost_usd = 0",
        "UPDATE embedding_models SET is_live = false",
        "UPDATE chunk_embeddings SET token_count = 0",
        "UPDATE transcript_chunks SET chunk_text = 'x'",
        "SELECT * FROM dagster.runs",
    ),
    SEARCH: (
        "SELECT * FROM fathom_calls",
        "SELECT * FROM fathom_transcripts",
        "SELECT * FROM embedding_queue",
        "SELECT * FROM embedding_attempts",
        "DELETE FROM transcript_chunks",
        "INSERT INTO embedding_models (model, dimensions) VALUES ('x', 1)",
        "DELETE FROM chunk_embeddings",
    ),
    OWNER: (
        "DELETE FROM fathom_calls",
        "UPDATE fathom_transcripts SET text = 'x'",
        "CREATE TABLE public.anything ()",
    ),
    IMPORTER: (
        "CREATE TABLE anything ()",
        "SELECT * FROM fathom_calls",  # somebody else's, who granted nothing
        "INSERT INTO fathom_calls (recording_id) VALUES (1)",
        "SELECT * FROM transcript_chunks",
        "SELECT * FROM embedding_queue",
        "SELECT * FROM chunk_embeddings",
    ),
    DAGSTER: (
        "SELECT * FROM embedding.transcript_chunks",
        "SELECT * FROM public.fathom_calls",
        "CREATE TABLE public.anything ()",
    ),
}


@pytest.mark.parametrize(
    ("role", "statement"), [(role, each) for role, list in FORBIDDEN.items() for each in list]
)
def test_what_is_not_its_work_is_refused(foreign: Site, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        foreign.execute(role, statement)


def test_the_worker_cannot_switch_the_model_and_the_service_cannot_work(foreign: Site) -> None:
    refused = foreign.command(SEARCH, "status", code=REFUSED)
    assert "grants" in refused.stderr
    refused = foreign.command(SEARCH, "run", code=REFUSED)
    assert "grants" in refused.stderr
    refused = foreign.command(WORKER, "switch-model", code=REFUSED)
    assert "grants" in refused.stderr
    assert "search reads" in foreign.command(OWNER, "switch-model").stdout


def test_every_table_is_granted_to_the_worker(foreign: Site, own: Site) -> None:
    """A migration that adds a table says in deploy/grants.sql what the worker does with it."""
    for site in (foreign, own):
        tables = site.execute(
            OWNER,
            "SELECT relname, has_table_privilege(%s, oid, 'SELECT') FROM pg_class"
            " WHERE relnamespace = 'embedding'::regnamespace AND relkind IN ('r', 'p')"
            # A partition is reached through its table, by the table's grants.
            " AND NOT relispartition",
            WORKER,
        )
        assert len(tables) > 5
        assert [name for name, is_readable in tables if not is_readable] == []


def test_where_the_tables_are_ours_the_owner_imports_and_the_worker_does_not(own: Site) -> None:
    record = {
        "recording_id": "a",
        "title": "A call",
        "segments": [{"speaker": "Ann", "start": 0, "end": 4, "text": "The walrus eats clams."}],
    }
    own.command(WORKER, "import", "-", given=json.dumps(record), code=REFUSED)
    own.command(OWNER, "import", "-", given=json.dumps(record))
    assert own.statuses() == {"a": "pending"}
    assert json.loads(own.command(WORKER, "run", "--json").stdout)["processed"] == 1
    hits = json.loads(own.command(SEARCH, "search", "walrus", "--json").stdout)
    assert [hit["recording_id"] for hit in hits] == ["a"]


def test_the_importer_writes_calls_and_the_workers_commands_use_it(own: Site) -> None:
    record = {
        "recording_id": "i",
        "title": "A call",
        "invitees": [{"email": "ann@example.org"}],
        "segments": [{"speaker": "Ann", "start": 0, "end": 4, "text": "The heron stands still."}],
    }
    settings = {"SOURCE_DATABASE_URL": own.url(IMPORTER)}
    own.command(WORKER, "import", "-", given=json.dumps(record), **settings)
    assert own.statuses()["i"] == "pending"
    own.command(WORKER, "run")
    hits = json.loads(
        own.command(SEARCH, "search", "heron", "--person", "ann@example.org", "--json").stdout
    )
    assert [hit["recording_id"] for hit in hits] == ["i"]
    shorter = {**record, "segments": [{"text": "The heron flies away."}]}
    own.command(WORKER, "import", "-", "--replace", given=json.dumps(shorter), **settings)
    with LoopbackFathom(["secret"]) as fathom:
        fathom.add("100", datetime.now(UTC) - timedelta(days=1), "We talk. We part.")
        fathom.add("101", datetime.now(UTC) - timedelta(days=2), "We talk. We part.")
        settings |= {
            "FATHOM_API_KEYS": "ann=secret",
            "FATHOM_BASE_URL": fathom.base_url,
            "FATHOM_SINCE": f"{datetime.now(UTC) - timedelta(days=9):%Y-%m-%d}",
            "FATHOM_GONE_MEETINGS": "withdraw",
        }
        own.command(WORKER, "sync", "fathom", **settings)
        assert own.statuses()["101"] == "pending"
        own.execute(
            IMPORTER, "UPDATE fathom_sightings SET missed = 5, listing = 0 WHERE meeting_id = '101'"
        )
        del fathom.meetings["101"]
        own.command(WORKER, "sync", "fathom", **settings)
    assert own.execute(OWNER, "SELECT 1 FROM fathom_calls WHERE recording_id = '101'") == []
    checks = json.loads(own.command(WORKER, "monitor", "--json", **settings).stdout)["checks"]
    (found,) = [check for check in checks if check["name"] == "recorder_sync"]
    assert (found["figures"]["there"], found["figures"]["here"]) == (1, 1)


def test_the_index_is_built_by_the_owner_for_everybody(own: Site, folder: Path) -> None:
    dagster_home = {"DAGSTER_HOME": str(folder / "ours-home" / "dagster")}
    with Path(folder / "calls.jsonl").open("w") as stream:
        write_jsonl(generate(20, 0, 1), stream)
    own.command(OWNER, "import", str(folder / "calls.jsonl"))
    own.command(WORKER, "run")
    indexes = (
        "SELECT count(*) FROM pg_index"
        " JOIN vector_index_parts ON indexrelid = to_regclass(index_name) WHERE indisvalid"
    )
    settings = {"INDEX_TAIL_ROWS": "100", **dagster_home}
    refused = own.job(WORKER, "maintain_vector_index", code=1, **settings)
    assert "must be owner of table chunk_embeddings" in refused.stderr
    assert own.execute(OWNER, indexes) == [(0,)]
    settings["INDEX_DATABASE_URL"] = own.url(OWNER)
    own.job(WORKER, "maintain_vector_index", **settings)
    assert own.execute(OWNER, indexes)[0][0] > 0
    hits = json.loads(own.command(SEARCH, "search", "price per truck", "--json").stdout)
    assert len(hits) == 5
