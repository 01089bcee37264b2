"""A role that row-level security blinds does not take what it cannot see for deleted."""

from collections.abc import Iterator

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.transcripts import require_sight
from embedding_assets_tests.calls import Embed, add_call, rows, talk

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


def test_a_role_that_sees_no_call_withdraws_nothing(blind: Database, database: Database) -> None:
    with pytest.raises(ConfigurationError, match="fathom_calls hides 3 of 3"):
        _look(blind)


def test_nor_one_that_sees_few(blind: Database, database: Database) -> None:
    _allow(database, "fathom_calls", "recording_id = 'a'")
    with pytest.raises(ConfigurationError, match="hides 2 of 3"):
        _look(blind)


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
