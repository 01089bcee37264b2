import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.rows import scalar_row

from embedding_assets.engine.database import SCHEMA_REVISION, Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.migrations import head_revision, migrate


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    assert migrate(empty_database_url)
    assert not migrate(empty_database_url)


def test_six_processes_migrating_at_once_all_succeed(empty_database_url: str) -> None:
    code = (
        "import sys; from embedding_assets.migrations import migrate; print(migrate(sys.argv[1]))"
    )
    with ThreadPoolExecutor(6) as pool:
        runs = [
            pool.submit(
                subprocess.run,
                [sys.executable, "-c", code, empty_database_url],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            for _ in range(6)
        ]
        results = [run.result() for run in runs]
    assert [result.stderr for result in results] == [""] * 6
    assert sorted(result.stdout.strip() for result in results) == ["False"] * 5 + ["True"]


def test_an_unmigrated_database_is_a_configuration_error_that_names_the_mend(
    empty_database_url: str,
) -> None:
    with (
        Database(empty_database_url) as database,
        pytest.raises(ConfigurationError, match="embedding-assets init"),
    ):
        database.check_schema()


def test_pgvector_may_live_in_a_schema_of_its_own(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    assert migrate(empty_database_url)
    with Database(empty_database_url) as database, database.transaction() as connection:
        assert connection.execute("SELECT to_regtype('vector') IS NOT NULL").fetchone() == (True,)


def test_source_tables_that_are_there_already_are_kept_and_tracked(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True, row_factory=scalar_row) as connection:
        connection.execute(
            """
            CREATE TABLE fathom_calls (recording_id bigint PRIMARY KEY, title text);
            CREATE TABLE fathom_transcripts (
                recording_id bigint, position int, speaker_name text, speaker_email text,
                start_seconds float8, end_seconds float8, text text, edited_text text,
                is_deleted boolean, PRIMARY KEY (recording_id, position));
            """
        )
        migrate(empty_database_url)
        connection.execute("INSERT INTO fathom_calls VALUES (7, 'a call')")
        connection.execute(
            "INSERT INTO fathom_transcripts (recording_id, position, text) VALUES (8, 0, 'hello')"
        )
        queued = connection.execute("SELECT recording_id FROM embedding_queue ORDER BY 1")
        assert queued.fetchall() == ["7", "8"]


def test_a_server_without_pgvector_is_named_as_what_is_missing(empty_database_url: str) -> None:
    # A role that may not create the extension stands for a server on which nobody can.
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS nobody_special; CREATE ROLE nobody_special LOGIN")
    url = empty_database_url.replace("postgres@", "nobody_special@")
    with pytest.raises(ConfigurationError, match="pgvector"):
        migrate(url)


def test_a_source_table_that_lacks_columns_is_named_before_anything_is_made(
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE fathom_calls (recording_id bigint PRIMARY KEY, title text);"
            "CREATE TABLE fathom_transcripts (recording_id bigint, position int, text text)"
        )
        with pytest.raises(ConfigurationError, match="edited_text, end_seconds, is_deleted"):
            migrate(empty_database_url)
        assert connection.execute("SELECT to_regclass('embedding_queue')").fetchone() == (None,)


def test_source_tables_elsewhere_on_the_search_path_are_the_ones(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            """
            CREATE SCHEMA app;
            CREATE TABLE fathom_calls (recording_id bigint PRIMARY KEY, title text);
            CREATE TABLE fathom_transcripts (
                recording_id bigint, position int, speaker_name text, start_seconds float8,
                end_seconds float8, text text, edited_text text, is_deleted boolean);
            DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = app, public',
                                       current_database()); END $$
            """
        )
    assert migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        tables = (
            "SELECT to_regclass('app.fathom_calls') IS NULL, to_regclass('app.embedding_queue')"
        )
        assert connection.execute(tables).fetchone() == (True, "embedding_queue")


def test_the_statements_ask_for_the_newest_migration() -> None:
    assert head_revision() == SCHEMA_REVISION
