"""That a reader sees their own calls and nothing of others, whatever is asked, and how."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row
from pydantic import SecretStr

from embedding_assets.cli.finding import find
from embedding_assets.engine.database import Database
from embedding_assets.engine.embedding import EmbeddingRun
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.queue import Claims
from embedding_assets.recorders.importing import import_meeting
from embedding_assets.recorders.people import merge
from embedding_assets.search.access import (
    NOBODY,
    AccessPolicy,
    access_state,
    calls_of,
    readers_of,
    turn_off,
    turn_on,
)
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.search import Filters, Mode, search
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets.settings import Settings
from embedding_assets_tests.calls import CHUNKING, Embed, embedder_of, rows
from embedding_assets_tests.checkout import ROOT
from embedding_assets_tests.loopback_api import LoopbackAPI, embedding

ANN, BOB, CEE, OUTSIDE = (
    "ann@example.org", "bob@example.org", "cee@example.org", "eve@elsewhere.example",
)  # fmt: skip
ROLE = "access_test_reader"
WRITER = "access_test_writer"
SECRET = "zebrafish"  # said in Bob's call only

MEETINGS: dict[str, dict[str, Any]] = {
    "anns": {"recorded_by": {"email": ANN, "team": "Sales"}, "shared_with": ["single_team"],
             "invitees": [{"email": BOB, "is_external": False},
                          {"email": OUTSIDE, "is_external": True}]},
    "bobs": {"recorded_by": {"email": BOB, "team": "Sales"}, "shared_with": ["no_teams"]},
    "cees": {"recorded_by": {"email": CEE, "team": "Legal"}, "invitees": [OUTSIDE],
             "shared_with": [ANN]},
    "nobodys": {},
}  # fmt: skip
WORDS = {
    "anns": "The walrus eats clams in the depot.",
    "bobs": f"The walrus meets a {SECRET} in the depot.",
    "cees": "The walrus signs a contract in the depot.",
    "nobodys": "The walrus is alone in the depot.",
}
Ask = Callable[..., list[Any]]


@pytest.fixture
def published(database: Database, embed: Embed) -> Database:
    for name, meeting in MEETINGS.items():
        said = [{"speaker": "Somebody", "text": WORDS[name], "start": 0, "end": 4}]
        import_meeting(database, "s", name, {"title": f"Call {name}", "segments": said, **meeting})
    embed()
    count_words(database)
    return database


@pytest.fixture
def as_role(published: Database, database_url: str) -> Iterator[Callable[[], psycopg.Connection]]:
    """Connections of a role that searches, with the rights of deploy/grants.sql."""
    grants = (ROOT / "deploy" / "grants.sql").read_text()
    start = grants.index("GRANT SELECT ON transcript_chunks, published_recordings")
    end = grants.index("GRANT EXECUTE ON FUNCTION nearest_chunk_vectors")
    with published.transaction() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {ROLE}")  # type: ignore[arg-type]
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")  # type: ignore[arg-type]
        granted = grants[start:end].replace("embedding_search, embedding_worker", ROLE)
        connection.execute(granted.replace("embedding_search", ROLE))  # type: ignore[arg-type]
    url = database_url.replace("postgres@", f"{ROLE}@", 1)
    yield lambda: psycopg.connect(url, autocommit=True, row_factory=namedtuple_row)
    with published.transaction() as connection:
        connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")  # type: ignore[arg-type]


def names(found: Any) -> set[str]:
    return {row.recording_id.removeprefix("s-") for row in found}


def ask(
    connection: psycopg.Connection, question: str, reader: str | None = None, **arguments: Any
) -> list[Any]:
    """The SQL function, as an application calls it."""
    given = {"mode": "hybrid", "filters": {}, "vector": None, **arguments}
    with connection.transaction():
        if reader is not None:
            connection.execute("SELECT set_config('embedding_assets.reader', %s, true)", [reader])
        return connection.execute(
            "SELECT * FROM search_transcript_chunks(%s, %s::vector, %s, %s::jsonb, 50)",
            [question, given["vector"], given["mode"], json.dumps(given["filters"])],
        ).fetchall()


SEEN = {
    "owner": {ANN: {"anns"}, BOB: {"bobs"}, CEE: {"cees"}, OUTSIDE: set[str]()},
    "invitees": {ANN: {"anns", "cees"}, BOB: {"anns", "bobs"}, CEE: {"cees"}, OUTSIDE: set[str]()},
    "team": {ANN: {"anns", "cees"}, BOB: {"anns", "bobs"}, CEE: {"cees"}, OUTSIDE: set[str]()},
    "everyone": {who: set(WORDS) for who in (ANN, BOB, CEE, OUTSIDE)},
}


@pytest.mark.parametrize("policy", list(SEEN))
def test_each_policy_lets_in_whom_it_says(
    published: Database, as_role: Callable[[], psycopg.Connection], policy: str
) -> None:
    turn_on(published, AccessPolicy(policy))
    with as_role() as connection:
        for reader, seen in SEEN[policy].items():
            assert names(ask(connection, "walrus", reader)) == seen
            assert names(ask(connection, "walrus", reader.upper())) == seen
            assert calls_of(published, reader)[0] == len(seen)
        assert ask(connection, "walrus") == []


def test_a_team_sees_what_one_of_them_recorded_unless_it_was_kept_private(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    said = [{"text": "The walrus talks to nobody else."}]
    import_meeting(published, "s", "bobs", {
        "title": "Call bobs", "segments": said, "recorded_by": {"email": BOB, "team": "Sales"},
        "shared_with": ["single_team"]})  # fmt: skip
    turn_on(published, AccessPolicy("team"))
    with as_role() as connection:
        assert names(ask(connection, "walrus", ANN)) == {"anns", "bobs", "cees"}
    found = {each.name: each.why for each in readers_of(published, "s-bobs") or []}
    assert found == {BOB: "recorded it", "team:sales": "their team recorded it"}


def test_externals_come_in_only_when_told_and_admins_see_all(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(
        published, AccessPolicy("invitees", admits_externals=True, admins=("Boss@example.org",))
    )
    with as_role() as connection:
        # Of Cee's call nobody said whether Eve is external: her domain does.
        assert names(ask(connection, "walrus", OUTSIDE)) == {"anns", "cees"}
        assert names(ask(connection, "walrus", "boss@EXAMPLE.org")) == set(WORDS)


def test_a_change_at_the_source_is_seen_at_once(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy())
    meeting = {"title": "Call anns", "segments": [{"text": WORDS["anns"], "speaker": "Somebody",
               "start": 0, "end": 4}], **MEETINGS["anns"]}  # fmt: skip
    with as_role() as connection:
        assert "anns" in names(ask(connection, "walrus", BOB))
        import_meeting(
            published, "s", "anns",
            {**meeting, "invitees": [{"email": CEE, "is_external": False}]},
        )  # fmt: skip
        assert "anns" not in names(ask(connection, "walrus", BOB))
        assert "anns" in names(ask(connection, "walrus", CEE))
        merge(published, BOB, [CEE])  # one person: each address sees what the other does
        assert names(ask(connection, "walrus", BOB)) == {"anns", "bobs", "cees"}


LEAKS: list[dict[str, Any]] = [
    {},
    {"mode": "keyword"},
    {"mode": "semantic", "vector": True},
    {"mode": "hybrid", "vector": True},
    {"filters": {"recordings": ["s-bobs"]}},
    {"filters": {"recordings": ["s-bobs"]}, "vector": True},
    {"filters": {"title": "bobs"}},
    {"filters": {"people": [BOB]}, "vector": True},
    {"filters": {"exclude": {"recordings": ["s-anns", "s-cees"]}}, "vector": True},
    {"filters": {"from": "1990-01-01"}},
    {"filters": {"exclude": {"platforms": ["nothing"]}}},
]


@pytest.mark.parametrize("arguments", LEAKS, ids=str)
@pytest.mark.parametrize(
    "question", [SECRET, f'"{SECRET}"', f'"meets a {SECRET}" -clams', "walrus depot", "in the"]
)
def test_nothing_of_another_readers_call_comes_out(
    published: Database,
    as_role: Callable[[], psycopg.Connection],
    question: str,
    arguments: dict[str, Any],
) -> None:
    turn_on(published, AccessPolicy())
    given = dict(arguments)
    if given.get("vector"):
        given["vector"] = str(embedding(WORDS["bobs"], 64).tolist())
    with as_role() as connection:
        for reader in (ANN, CEE, OUTSIDE, "", None):
            found = ask(connection, question, reader, **given)
            assert "bobs" not in names(found)
            assert SECRET not in str(found)
        assert given.get("filters", {}).get("title") != "bobs" or names(
            ask(connection, "walrus", BOB, **given)
        ) == {"bobs"}


@pytest.mark.parametrize(
    "reader",
    [
        "*",
        "team:sales",
        "' OR true --",
        "{*}",
        f"{ANN}','{BOB}",
        "\\",
        "%",
        "NULL",
        " ",
        "a" * 9000,
    ],
)
def test_an_injected_name_is_a_name(
    published: Database, as_role: Callable[[], psycopg.Connection], reader: str
) -> None:
    turn_on(published, AccessPolicy("team"))
    with as_role() as connection:
        assert ask(connection, "walrus", reader) == []


def test_tables_and_helpers_give_the_reader_nothing_more(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy())
    refused = psycopg.errors.InsufficientPrivilege
    with as_role() as connection:
        for table in ("transcript_chunks", "published_recordings"):
            count: Any = f"SELECT count(*) FROM {table}"  # noqa: S608
            assert connection.execute(count).fetchone() == (0,)
            with connection.transaction():
                connection.execute(f"SET LOCAL embedding_assets.reader = '{ANN}'")
                assert connection.execute(count).fetchone() == (2,)
                # An error's text and a plan's counts are made after the policy.
                leaky = (
                    "SELECT count(*) FROM transcript_chunks"
                    " WHERE strpos(chunk_text, %s) > 0 AND 1 / (token_count * 0) = 1"
                )
                assert connection.execute(leaky, [SECRET]).fetchone() == (0,)
        for statement in (
            "SELECT * FROM chunk_words",
            "SELECT * FROM people",
            "SELECT * FROM call_people",
            "SELECT * FROM call_details",
            "SELECT * FROM chunk_embeddings",
            "SELECT * FROM access_settings",
            "SELECT * FROM fathom_transcripts",
            "SELECT * FROM search_lexemes",
            "SELECT switch_access(false)",
            "SELECT derive_all_readers()",
            "SELECT derive_call_readers(ARRAY['s-bobs'])",
            "UPDATE transcript_chunks SET chunk_text = ''",
            "INSERT INTO call_readers VALUES ('s-bobs', 'x', 'y')",
            "SELECT * FROM nearest_chunk_vectors('[1]', 5)",
            "SELECT * FROM chunk_similarities('[1]', '{}')",
        ):
            with pytest.raises(refused):
                connection.execute(statement)
        # Who sees what is told to nobody but those who publish.
        assert connection.execute("SELECT count(*) FROM call_readers").fetchone() == (0,)


def test_a_session_that_is_pooled_keeps_no_reader(
    published: Database, as_role: Callable[[], psycopg.Connection], api: LoopbackAPI
) -> None:
    turn_on(published, AccessPolicy())
    with as_role() as connection:
        assert names(ask(connection, "walrus", BOB)) == {"anns", "bobs"}
        assert ask(connection, "walrus") == []
        with connection.transaction(force_rollback=True):
            connection.execute(f"SET LOCAL embedding_assets.reader = '{BOB}'")
        assert ask(connection, "walrus") == []


def test_a_token_of_supabase_names_the_reader_and_cannot_be_talked_over(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy())
    with as_role() as connection, connection.transaction():
        claims = json.dumps({"email": CEE.upper(), "sub": "5b3c"})
        connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
        connection.execute("SELECT set_config('embedding_assets.reader', %s, true)", [BOB])
        found = connection.execute("SELECT * FROM search_transcript_chunks('walrus')").fetchall()
        assert names(found) == {"cees"}


def test_the_command_searches_as_a_reader_and_says_when_access_is_off(
    published: Database, api: LoopbackAPI, database_url: str
) -> None:
    def found(reader: str | None, **options: Any) -> set[str]:
        answer = search(published, embedder_of(api), "walrus", reader=reader, **options)
        return {hit.recording_id.removeprefix("s-") for hit in answer.hits}

    assert found(ANN) == found(NOBODY) == set(WORDS)
    with pytest.raises(ConfigurationError, match="access is off"):
        find(Settings(database_url=SecretStr(database_url)), "walrus", limit=1, reader=ANN)
    turn_on(published, AccessPolicy())
    assert found(NOBODY) == set()
    for mode in Mode:
        assert found(ANN, mode=mode) == {"anns", "cees"}
        assert found(None, mode=mode) == set(WORDS)  # a role that publishes
    assert found(ANN, filters=Filters(people=[CEE])) == {"cees"}
    turn_off(published)
    assert found(None) == set(WORDS)
    assert access_state(published).is_on is False


def test_workers_publish_withdraw_and_count_under_the_policies(
    published: Database, database_url: str, embed: Embed, api: LoopbackAPI
) -> None:
    """As a role that owns nothing and that the policies apply to."""
    with published.transaction() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {WRITER}")  # type: ignore[arg-type]
        connection.execute(f"CREATE ROLE {WRITER} LOGIN")  # type: ignore[arg-type]
        connection.execute(
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {WRITER};"  # type: ignore[arg-type]
            f" GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {WRITER};"
            f" GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {WRITER}"
        )
    try:
        turn_on(published, AccessPolicy())
        with Database(database_url.replace("postgres@", f"{WRITER}@", 1)) as worker:
            with worker.transaction() as connection:
                assert connection.execute(
                    "SELECT row_security_active('transcript_chunks')"
                ).fetchone() == (True,)
            said = [{"text": "The walrus sleeps."}]
            import_meeting(worker, "s", "late", {
                "title": "Late", "segments": said, "recorded_by": {"email": CEE}})  # fmt: skip
            with worker.transaction() as connection:
                connection.execute("DELETE FROM fathom_calls WHERE recording_id = 's-nobodys'")
            embed_as(worker, api)
            count_words(worker)
            found = search(worker, embedder_of(api), "walrus")
            assert {hit.recording_id for hit in found.hits} == {
                "s-anns", "s-bobs", "s-cees", "s-late",
            }  # fmt: skip
            assert rows(worker, "SELECT count(*) FROM transcript_chunks") == [(4,)]
    finally:
        with published.transaction() as connection:
            connection.execute(f"DROP OWNED BY {WRITER}; DROP ROLE {WRITER}")  # type: ignore[arg-type]


def embed_as(worker: Database, api: LoopbackAPI) -> None:
    claims = Claims(worker, "run", timedelta(minutes=5))
    outcomes = list(EmbeddingRun(worker, embedder_of(api), CHUNKING, claims).embed(claims.due()))
    assert [each.error for each in outcomes if each.error] == []


def test_the_owner_is_held_to_it_too_and_a_call_of_nobody_is_seen_by_its_importer(
    published: Database, server: EmbeddedPostgres
) -> None:
    turn_on(published, AccessPolicy())
    forced = rows(
        published,
        "SELECT bool_and(relrowsecurity AND relforcerowsecurity) FROM pg_class"
        " WHERE oid IN (SELECT * FROM guarded_tables())",
    )
    assert forced == [(True,)]
    assert readers_of(published, "s-nobodys") == []
    assert readers_of(published, "no such call") is None
    with published.transaction() as connection:
        connection.execute(
            "UPDATE call_details SET imported_by = 'dan@example.org'"
            " WHERE recording_id = 's-nobodys'"
        )
    (reason,) = readers_of(published, "s-nobodys") or []
    assert (reason.name, reason.why) == ("dan@example.org", "imported it")


@pytest.mark.parametrize(
    "function", ["follow_readers", "follow_owners", "track_calls", "track_transcripts"]
)
def test_no_reader_makes_a_trigger_that_runs_with_the_owners_rights(
    as_role: Callable[[], psycopg.Connection], function: str
) -> None:
    with as_role() as connection:
        connection.execute("CREATE TEMP TABLE mine (recording_id text)")
        statement = (
            "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS changed"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[call-overload]


def test_visitors_whom_a_server_lets_write_are_not_taken_for_workers(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    with published.transaction() as connection:
        connection.execute("DROP ROLE IF EXISTS authenticated; CREATE ROLE authenticated")
        for table in ("transcript_chunks", "call_people", "chunk_words_english"):
            connection.execute(f"GRANT ALL ON {table} TO authenticated")  # type: ignore[call-overload]
        connection.execute(f"GRANT authenticated TO {ROLE}; GRANT INSERT ON people TO PUBLIC")  # type: ignore[call-overload]
    try:
        state = turn_on(published, AccessPolicy())
        assert "authenticated" not in state.trusted_roles
        with as_role() as connection, connection.transaction():
            connection.execute("SET LOCAL ROLE authenticated")
            for table in ("transcript_chunks", "call_people", "chunk_words_english"):
                count: Any = f"SELECT count(*) FROM {table}"  # noqa: S608
                assert connection.execute(count).fetchone() == (0,)
    finally:
        with published.transaction() as connection:
            connection.execute("DROP OWNED BY authenticated; DROP ROLE authenticated")


def test_an_owner_who_changes_is_another_reader_at_once(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy("owner"))
    with as_role() as connection:
        change = "UPDATE fathom_calls SET user_id = %s WHERE recording_id = 's-nobodys'"
        for owner in ("user-1", "user-2"):
            with published.transaction() as writing:
                writing.execute(change, [owner])
            assert names(ask(connection, "walrus", owner)) == {"nobodys"}
        assert names(ask(connection, "walrus", "user-1")) == set()


def test_who_is_external_once_is_so_in_the_whole_call(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy())
    known = "eve@example.org"  # the company's domain, but the recorder says that she is external
    import_meeting(published, "s", "cees", {
        "title": "Call cees", "recorded_by": {"email": CEE},
        "invitees": [{"email": known, "is_external": True}], "shared_with": [known],
        "segments": [{"text": WORDS["cees"], "speaker": "Eve", "email": known}]})  # fmt: skip
    with as_role() as connection:
        assert ask(connection, "walrus", known) == []
        assert names(ask(connection, "walrus", CEE)) == {"cees"}


def test_the_last_invitee_and_the_team_can_be_taken_out(
    published: Database, as_role: Callable[[], psycopg.Connection]
) -> None:
    turn_on(published, AccessPolicy("team"))
    said = [{"text": WORDS["anns"], "speaker": "Somebody", "start": 0, "end": 4}]
    import_meeting(
        published,
        "s",
        "anns",
        {"title": "Call anns", "segments": said, "recorded_by": {"email": ANN}, "invitees": []},
    )
    with as_role() as connection:
        assert "anns" not in names(ask(connection, "walrus", BOB))
        assert "anns" in names(ask(connection, "walrus", ANN))
    assert rows(published, "SELECT team FROM call_details WHERE recording_id = 's-anns'") == [
        (None,)
    ]


def test_a_language_that_is_added_later_is_guarded_too(published: Database) -> None:
    turn_on(published, AccessPolicy())
    with published.transaction() as connection:
        connection.execute("SELECT add_search_language('german')")
    guarded = rows(
        published, "SELECT relrowsecurity FROM pg_class WHERE relname = 'chunk_words_german'"
    )
    assert guarded == [(True,)]
