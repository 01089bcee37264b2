"""A role that row-level security blinds does not take what it cannot see for deleted."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.queue import Claims
from embedding_assets.engine.transcripts import is_certainly_gone, require_sight
from embedding_assets_tests.calls import CHUNKING, Embed, add_call, embedder_of, rows, talk
from embedding_assets_tests.checkout import ROOT
from embedding_assets_tests.loopback_api import LoopbackAPI

SOURCES = ("fathom_calls", "fathom_transcripts")


@pytest.fixture
def blind(database: Database, database_url: str, embed: Embed) -> Iterator[Database]:
    """A role for which row-level security applies, where three recordings are published."""
    with database.transaction() as connection:
        for name in "abc":
            add_call(connection, name, talk(name, 5))
    embed()
    with database.transaction() as connection:
        connection.execute("CREATE ROLE blind LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO blind")
        for table in SOURCES:
            connection.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")  # type: ignore[arg-type]
    try:
        with Database(database_url.replace("//postgres@", "//blind@")) as blind:
            yield blind
    finally:
        with database.transaction() as connection:
            connection.execute("DROP OWNED BY blind")
            connection.execute("DROP ROLE blind")


def _allow(database: Database, table: str, condition: str = "true") -> None:
    with database.transaction() as connection:
        connection.execute(f"CREATE POLICY sees ON {table} FOR SELECT USING ({condition})")  # type: ignore[arg-type]


def _look(blind: Database) -> None:
    with blind.transaction(snapshot=True) as connection:
        require_sight(connection)


def _tell(database: Database) -> None:
    """What deploy/roles.sql leaves behind as the tables' owner."""
    roles = (ROOT / "deploy" / "roles.sql").read_text()
    start = roles.index("CREATE OR REPLACE FUNCTION embedding.call_exists")
    function = roles[start : roles.index("REVOKE", start)].replace("embedding.", "")
    with database.transaction() as connection:
        connection.execute(function)  # type: ignore[arg-type]


def test_a_role_that_sees_no_call_withdraws_nothing(blind: Database, database: Database) -> None:
    _tell(database)
    with pytest.raises(ConfigurationError, match="fathom_calls hides 3 of 3"):
        _look(blind)


def test_nor_one_that_sees_all_but_one(blind: Database, database: Database) -> None:
    _tell(database)
    _allow(database, "fathom_calls", "recording_id <> 'a'")
    with pytest.raises(ConfigurationError, match="hides 1 of 3"):
        _look(blind)


def test_nor_one_that_nobody_tells_whether_what_it_does_not_see_is_there(
    blind: Database, database: Database
) -> None:
    _allow(database, "fathom_calls", "recording_id <> 'a'")
    with pytest.raises(ConfigurationError, match=r"does not see 1 of 3 .* deploy/roles\.sql"):
        _look(blind)


def test_what_is_deleted_is_told_from_what_is_hidden(
    blind: Database, database: Database, api: LoopbackAPI
) -> None:
    _tell(database)
    for table in SOURCES:
        _allow(database, table)
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    _look(blind)
    # Hidden between the look and the withdrawal: it stays.
    with database.transaction() as connection:
        connection.execute("UPDATE fathom_calls SET title = 'changed' WHERE recording_id = 'b'")
        connection.execute("ALTER POLICY sees ON fathom_calls USING (recording_id = 'c')")
    with blind.transaction(snapshot=True) as connection:
        assert is_certainly_gone(connection, "a")
        assert not is_certainly_gone(connection, "b")
    claims = Claims(blind, "run", timedelta(minutes=5))
    run = EmbeddingRun(blind, embedder_of(api), CHUNKING, claims)
    with pytest.raises(ConfigurationError, match="hides recording b"):
        list(run.embed(claims.these(["b"])))
    assert rows(database, "SELECT attempts FROM embedding_queue WHERE recording_id = 'b'") == [(0,)]
    assert rows(database, "SELECT DISTINCT recording_id FROM transcript_chunks ORDER BY 1") == [
        ("a",), ("b",), ("c",),
    ]  # fmt: skip


def test_a_role_that_sees_no_segment_publishes_no_empty_recordings(
    blind: Database, database: Database
) -> None:
    _allow(database, "fathom_calls")
    with pytest.raises(ConfigurationError, match="fathom_transcripts hides"):
        _look(blind)


def test_a_policy_that_shows_all_is_no_hindrance(blind: Database, database: Database) -> None:
    for table in SOURCES:
        _allow(database, table)
    _look(blind)


def test_without_a_policy_any_number_of_calls_may_be_deleted(
    database: Database, embed: Embed
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 5))
    embed()
    with database.transaction() as connection:
        connection.execute("DELETE FROM fathom_calls")
    embed()
    assert rows(database, "SELECT FROM transcript_chunks") == []
