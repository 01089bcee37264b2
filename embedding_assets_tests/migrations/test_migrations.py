import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.rows import scalar_row

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import SCHEMA_REVISION, Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.rechunking import cut_otherwise
from embedding_assets.health.numbers import measure
from embedding_assets.migrations import head_revision, migrate
from embedding_assets.search.calls import call, transcript


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
    # Whoever is quickest takes the next step.
    assert "True" in {result.stdout.strip() for result in results}
    with Database(empty_database_url) as database:
        database.check_schema()


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


RELEASED = """
INSERT INTO fathom_calls (recording_id, title, url, source_platform, created_at, recorded_at)
VALUES ('dated', 'A call', 'https://x.example/1', 'zoom', '2026-05-01', '2026-03-04'),
       ('undated', 'Another', NULL, NULL, '2026-05-01', NULL);
INSERT INTO transcript_chunks
    (recording_id, chunk_index, chunk_text, content_hash, token_count, speakers, first_position,
     last_position, call_title, call_recorded_at, user_id)
SELECT id, n, 'Ann Bee: chunk ' || n || ' about zebras', sha256((id || n)::bytea), 5,
       ARRAY['Ann Bee'], n, n, 'A call', '2026-05-01', 'u1'
FROM unnest(ARRAY['dated', 'undated', 'gone']) AS id, generate_series(0, 2) AS n;
"""


def test_what_an_installation_has_published_is_searched_after_the_migration(
    empty_database_url: str,
) -> None:
    assert migrate(empty_database_url, "0004")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(RELEASED)
    assert migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        described = connection.execute(
            "SELECT recording_id, title, recorded_at::date::text, url, source_platform, user_id,"
            " speaker_names, chunk_count, cut_as FROM published_recordings ORDER BY 1"
        ).fetchall()
        names = ["ann", "ann bee", "bee"]
        assert described == [
            ("dated", "A call", "2026-03-04", "https://x.example/1", "zoom", "u1", names, 3, None),
            ("gone", "A call", "2026-05-01", None, None, "u1", names, 3, None),
            ("undated", "A call", None, None, None, "u1", names, 3, None),
        ]
        found = connection.execute(
            "SELECT recording_id FROM search_transcript_chunks('zebra', max_hits => 20)"
        ).fetchall()
        assert len(found) == 9
        same = connection.execute(
            "SELECT bool_and(words = to_tsvector('english', chunk_text)) FROM transcript_chunks"
            " JOIN chunk_words USING (recording_id, chunk_index)"
        ).fetchone()
        assert same == (True,)


# Two calls of the revision before recorders had tables of their own, with what was known of people.
WITHOUT_RECORDERS = """
INSERT INTO fathom_calls (recording_id, title, source_platform, recorded_by_name, recorded_by_email)
VALUES ('1', 'A call', 'fathom', 'Ann Bee', 'Ann@Example.org'), ('2', 'Another', 'vtt', NULL, NULL);
INSERT INTO fathom_transcripts (recording_id, position, speaker_name, speaker_email, text)
VALUES ('1', 0, 'Ann Bee', 'ann@example.org', 'Hello.'),
       ('1', 1, 'Cee Dee', 'cee@example.com', 'Good morning.'),
       ('2', 0, 'Eva', NULL, 'Hello again.');
"""


def test_who_is_known_of_calls_of_before_is_found_after_the_migration(
    empty_database_url: str,
) -> None:
    assert migrate(empty_database_url, "0007")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(WITHOUT_RECORDERS)
    assert migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT email, name FROM people ORDER BY 1").fetchall() == [
            ("ann@example.org", "Ann Bee"), ("cee@example.com", "Cee Dee"),
        ]  # fmt: skip
        assert connection.execute(
            "SELECT recording_id, role, email FROM call_people ORDER BY 2, 3"
        ).fetchall() == [
            ("1", "recorded_by", "ann@example.org"),
            ("1", "speaker", "ann@example.org"),
            ("1", "speaker", "cee@example.com"),
        ]
        # The details follow a call of ours when it is deleted.
        connection.execute("DELETE FROM fathom_calls WHERE recording_id = '1'")
        assert connection.execute("SELECT count(*) FROM call_people").fetchone() == (0,)


def test_whoever_could_search_before_access_can_search_after_it_and_reads_no_vectors(
    empty_database_url: str,
) -> None:
    searches = "search_transcript_chunks(text, vector, text, jsonb, integer, integer)"
    helps = "chunk_similarities(vector, bytea[])"
    assert migrate(empty_database_url, "0007")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute('DROP ROLE IF EXISTS "Reads.Calls"; CREATE ROLE "Reads.Calls"')
        connection.execute('GRANT SELECT ON transcript_chunks, chunk_words TO "Reads.Calls"')
        connection.execute(f'GRANT EXECUTE ON FUNCTION {helps} TO "Reads.Calls"')  # type: ignore[call-overload]
        connection.execute("DROP ROLE IF EXISTS nobody_here; CREATE ROLE nobody_here")
    try:
        assert migrate(empty_database_url)
        with psycopg.connect(empty_database_url) as connection:

            def may(role: str, function: str) -> bool:
                row = connection.execute(
                    "SELECT has_function_privilege(%s, %s, 'EXECUTE')", [role, function]
                ).fetchone()
                return bool(row and row[0])

            assert may("Reads.Calls", searches)
            assert not may("Reads.Calls", helps)
            assert not may("nobody_here", searches)
            connection.execute("SELECT switch_access(true)")
    finally:
        with psycopg.connect(empty_database_url) as connection:
            connection.execute('DROP OWNED BY "Reads.Calls"; DROP ROLE "Reads.Calls"')
            connection.execute("DROP ROLE nobody_here")


# A call as the revision before turns published it, with an attempt.
WITHOUT_TURNS = """
INSERT INTO fathom_calls (recording_id, title) VALUES ('1', 'A call');
INSERT INTO transcript_chunks
    (recording_id, chunk_index, chunk_text, content_hash, token_count, speakers, start_seconds,
     end_seconds, first_position, last_position)
VALUES ('1', 0, E'Ann: Hello.\\nBo: Hello, Ann.', sha256('a'), 5, '{Ann,Bo}', 0, 9, 0, 1),
       ('1', 1, E'Bo: Hello, Ann.\\nAnn: The zebra is well.', sha256('b'), 5, '{Bo,Ann}', 5, 20,
        1, 2);
INSERT INTO published_recordings (recording_id, title, speaker_names, chunk_count, cut_as)
VALUES ('1', 'A call', '{ann,bo}', 2, '330/50/460');
INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome, seconds)
VALUES (gen_random_uuid(), '1', 'run', 'standard', 'published', 1);
"""


def test_calls_of_before_are_read_by_the_chunk_until_they_are_cut_again(
    empty_database_url: str,
) -> None:
    assert migrate(empty_database_url, "0010")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(WITHOUT_TURNS)
    assert migrate(empty_database_url)
    settings = ChunkSettings(target=330, overlap=50, maximum=460)
    with Database(empty_database_url) as database, database.transaction() as connection:
        found = transcript(connection, "1")
        assert found is not None
        _, turns = found
        assert [(turn.position, turn.speaker, turn.start_seconds) for turn in turns] == [
            (0, None, 0.0), (1, None, 5.0),
        ]  # fmt: skip
        assert turns[1].text == "Ann: The zebra is well."
        assert call(connection, "1") is not None
        # `rechunk` knows of them, and health does not complain.
        assert cut_otherwise(connection, settings).recording_ids == ("1",)
        numbers = measure(connection, cut_as=settings.name)
        assert (numbers.cut_otherwise, numbers.cut_unknown) == (0, 0)
        refusals = connection.execute("SELECT refusals FROM embedding_attempts").fetchone()
        assert refusals == (0,)
