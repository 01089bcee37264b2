"""What a dead run held: who is suspected of having killed it, and who pays."""

import pytest
from alembic import command
from sqlalchemy import create_engine

from embedding_assets import migrations
from embedding_assets.engine import queue
from embedding_assets.engine.database import Database
from embedding_assets_tests.engine.conftest import add_call, rows, talk


@pytest.mark.parametrize("way", ["a change", "a person's retry"])
def test_what_was_changed_or_retried_by_a_person_is_no_suspect(
    database: Database, way: str
) -> None:
    with database.transaction() as connection:
        add_call(connection, "a", talk("a", 3))
        connection.execute(
            "UPDATE embedding_queue SET crashes = 3, status = 'failed', attempts = 1,"
            " error_kind = 'crashed', last_error = 'x'"
        )
        if way == "a change":
            connection.execute("UPDATE fathom_transcripts SET edited_text = 'x'")
        else:
            queue.retry(connection, ["a"], force=False)
    assert rows(database, "SELECT status, crashes FROM embedding_queue") == [("pending", 0)]


def test_the_migration_goes_back_and_forth_and_functions_stay_pinned(
    database: Database, database_url: str
) -> None:
    pinned = (
        "SELECT proname FROM pg_proc WHERE proconfig::text LIKE '%%search_path=%%pg_temp%%'"
        " ORDER BY 1"
    )
    everything = [("enqueue_recordings",), ("track_calls",), ("track_transcripts",)]
    assert rows(database, pinned) == everything
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    engine.dispose()
    assert rows(database, pinned) == everything
    with database.transaction() as connection:
        add_call(connection, "a", ["hello"])
    assert migrations.migrate(database_url)
    assert rows(database, pinned) == everything
    assert rows(database, "SELECT crashes FROM embedding_queue") == [(0,)]
