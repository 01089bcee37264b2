"""That what is forgotten is gone everywhere, at once, and does not come back."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, InvalidInputError
from embedding_assets.forgetting import Request, forget, plan
from embedding_assets.recorders.importing import import_meeting, import_recordings
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.search import Mode, search
from embedding_assets_tests.calls import Embed, embedder_of, rows
from embedding_assets_tests.loopback_api import LoopbackAPI

ANN, BOB = "ann@example.org", "bob@example.org"
SECRET = "quetzalcoatlus"

SHARED = "Thank you all, and goodbye until the next time we meet."
MEETINGS: dict[str, dict[str, Any]] = {
    "one": {"recorded_at": "2024-02-03T10:00:00Z", "recorded_by": {"email": ANN, "name": "Ann Bee"},
            "said": [("Ann Bee", ANN, f"The {SECRET} is the secret of the depot.")]},
    "two": {"recorded_at": "2026-02-03T10:00:00Z", "recorded_by": {"email": BOB, "name": "Bob Cee"},
            "invitees": [{"email": ANN, "name": "Ann Bee"}],
            "said": [("Bob Cee", BOB, "The heron stands in the water."),
                     ("Ann Bee", None, "I have seen a pterodactyl there.")]},
    "three": {"recorded_at": "2026-02-04T10:00:00Z",
              "said": [("Eva", None, "Nobody of them is here.")]},
}  # fmt: skip


def bring(database: Database, name: str) -> Any:
    meeting = dict(MEETINGS[name])
    said = meeting.pop("said")
    segments = [
        {"speaker": speaker, "email": email, "text": text, "start": n * 5, "end": n * 5 + 4}
        for n, (speaker, email, text) in enumerate(said)
    ]
    return import_meeting(
        database, "s", name, {"title": f"Call {name}", "segments": segments, **meeting}
    )


@pytest.fixture
def published(database: Database, embed: Embed) -> Database:
    for name in MEETINGS:
        bring(database, name)
    embed()
    count_words(database)
    return database


def everywhere(database: Database) -> str:
    """Every row of every table, as text."""
    tables = rows(
        database,
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN"
        " ('forgettings', 'forgotten_calls')",
    )
    return "\n".join(
        str(row)
        for (table,) in tables
        for row in rows(database, f"SELECT * FROM {table}")  # noqa: S608
    )


def calls(database: Database) -> list[str]:
    return [id_ for (id_,) in rows(database, "SELECT recording_id FROM fathom_calls ORDER BY 1")]


def test_a_call_is_gone_everywhere_and_at_once(
    published: Database, embed: Embed, api: LoopbackAPI
) -> None:
    vectors = rows(published, "SELECT count(*) FROM chunk_embeddings")[0][0]
    proof = forget(published, Request(recordings=("s-one",)))
    assert calls(published) == ["s-three", "s-two"]
    left = everywhere(published)
    assert "s-one" not in left
    assert SECRET not in left
    assert rows(published, "SELECT count(*) FROM chunk_embeddings") == [(vectors - 1,)]
    assert proof.counts["transcript_chunks"] == proof.counts["chunk_embeddings"] == 1
    assert search(published, embedder_of(api), SECRET, mode=Mode.keyword).hits == ()
    # The ledger of costs is whole.
    assert rows(published, "SELECT count(*), sum(embedded) FROM embedding_attempts") == [(3, 3)]
    (told,) = rows(published, "SELECT id, request, counts, not_reached FROM forgettings")
    assert told.id == proof.number
    assert told.request == {"recordings": 1, "recording_ids": ["s-one"]}
    assert told.counts["fathom_transcripts"] == 1
    assert any("backups" in each for each in told.not_reached)
    assert json.dumps(proof.as_dict())

    report = bring(published, "one")
    assert any("was forgotten on" in str(each) for each in report.notices)
    assert calls(published) == ["s-three", "s-two"]
    assert embed() == []


def test_a_vector_that_another_call_says_too_stays(
    published: Database, embed: Embed, api: LoopbackAPI
) -> None:
    for name in ("x", "y"):
        import_meeting(published, "s", name, {
            "title": "The same", "segments": [{"speaker": "Eva", "text": SHARED}]})  # fmt: skip
    embed()
    forget(published, Request(recordings=("s-x",)))
    found = search(published, embedder_of(api), SHARED, mode=Mode.semantic)
    assert found.hits[0].recording_id == "s-y"


def test_a_persons_calls_are_forgotten_and_no_others(published: Database) -> None:
    proof = forget(published, Request(person=ANN.upper()))
    assert proof.recording_ids == ["s-one", "s-two"]
    assert calls(published) == ["s-three"]
    left = everywhere(published)
    assert "ann" not in left.lower().replace("annotation", "")
    (told,) = rows(published, "SELECT request FROM forgettings")
    assert ANN not in str(told)
    assert rows(published, "SELECT email FROM people") == []


def test_a_persons_words_in_calls_of_others_are_replaced_and_stay_so(
    published: Database, embed: Embed, api: LoopbackAPI
) -> None:
    forget(published, Request(person=ANN, words_only=True))
    assert calls(published) == ["s-one", "s-three", "s-two"]
    left = everywhere(published)
    for gone in (SECRET, "pterodactyl", ANN, "Ann Bee"):
        assert gone not in left
    # Not a moment is it found, though the calls are not embedded again yet.
    assert search(published, embedder_of(api), "pterodactyl", mode=Mode.keyword).hits == ()
    embed()
    assert "heron" in search(published, embedder_of(api), "heron", mode=Mode.keyword).hits[0].text
    for name in MEETINGS:
        bring(published, name)
    embed()
    left = everywhere(published)
    for gone in (SECRET, "pterodactyl", ANN, "Ann Bee"):
        assert gone not in left
    assert "The heron stands in the water." in left


def test_calls_of_before_a_day_are_forgotten(published: Database) -> None:
    before = Request(before=datetime(2025, 1, 1, tzinfo=UTC))
    assert plan(published, before).recording_ids == ["s-one"]
    assert calls(published) == ["s-one", "s-three", "s-two"]
    forget(published, before)
    assert calls(published) == ["s-three", "s-two"]


def test_a_run_that_holds_the_call_publishes_nothing_afterwards(
    published: Database, database_url: str
) -> None:
    with published.transaction() as connection:
        connection.execute(
            "UPDATE embedding_queue SET status = 'processing', claimed_by = 'run',"
            " lease_expires_at = now() + interval '1 hour' WHERE recording_id = 's-one'"
        )
    forget(published, Request(recordings=("s-one",)))
    assert rows(published, "SELECT 1 FROM embedding_queue WHERE recording_id = 's-one'") == []


def test_files_at_the_provider_are_deleted_or_told(published: Database) -> None:
    with published.transaction() as connection:
        connection.execute("""
            INSERT INTO embedding_batches (batch_id, model, state, inputs, planned_tokens, deadline,
                                           input_file)
            VALUES ('11111111-1111-1111-1111-111111111111', 'm', 'planned', 1, 1, now(), 'file-7');
            INSERT INTO embedding_batch_inputs
            VALUES ('m', sha256('x'), '11111111-1111-1111-1111-111111111111', 's-one'),
                   ('m', sha256('y'), '11111111-1111-1111-1111-111111111111', 's-two');
        """)
    deleted: list[str] = []
    proof = forget(published, Request(recordings=("s-one",)), delete_file=deleted.append)
    assert (deleted, proof.counts["batch_files"]) == (["file-7"], 1)
    proof = forget(published, Request(recordings=("s-two",)))
    assert any("file file-7" in each for each in proof.not_reached)


@pytest.mark.parametrize(
    "request_",
    [{}, {"person": ANN, "recordings": ("a",)}, {"recordings": ("a",), "words_only": True}],
)
def test_a_request_says_one_thing(request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Request(**request_)


def test_tables_of_somebody_else_stop_it_before_anything_is_deleted(
    published: Database, database_url: str
) -> None:
    role = "forgetting_test"
    with published.transaction() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")  # type: ignore[arg-type]
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")  # type: ignore[arg-type]
        connection.execute(f"REVOKE DELETE ON fathom_calls FROM {role}")  # type: ignore[arg-type]
    try:
        with (
            Database(database_url.replace("postgres@", f"{role}@", 1)) as other,
            pytest.raises(ConfigurationError, match="have their owner delete it there"),
        ):
            forget(other, Request(recordings=("s-one",)))
        assert "s-one" in calls(published)
        assert SECRET in everywhere(published)
    finally:
        with published.transaction() as connection:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")  # type: ignore[arg-type]


@pytest.fixture
def files(database: Database) -> Path:
    """The folder of this database's files."""
    ((folder,),) = rows(
        database,
        "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database"
        " WHERE datname = current_database()",
    )
    return Path(folder)


def test_no_byte_of_it_is_in_the_databases_files_after_a_rewrite(
    published: Database, files: Path, database_url: str
) -> None:
    def checkpoint() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def found() -> list[str]:
        names = []
        for file in files.iterdir():
            with contextlib.suppress(FileNotFoundError):  # Postgres removes files meanwhile
                if SECRET.encode() in file.read_bytes():
                    names.append(file.name)
        return names

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    checkpoint()
    assert found()
    forget(published, Request(recordings=("s-one",)), rewrite=True)
    checkpoint()
    with psycopg.connect(database_url, autocommit=True) as connection:
        left = [
            connection.execute(
                "SELECT relname FROM pg_class WHERE pg_relation_filenode(oid)::text = %s",
                [name.partition(".")[0].partition("_")[0]],
            ).fetchone()
            for name in found()
        ]
    assert [row and row[0] for row in left if row] == []


def test_a_copy_under_another_name_is_not_taken_again(published: Database, tmp_path: Path) -> None:
    path = tmp_path / "call.vtt"
    path.write_text(f"WEBVTT\n\n00:00:01.000 --> 00:00:04.000\n<v Ann>The {SECRET} of a file.\n")
    assert import_recordings(published, [path]).imported == 1
    forget(published, Request(recordings=("call",)))
    path.rename(tmp_path / "another.vtt")
    report = import_recordings(published, [tmp_path / "another.vtt"])
    assert report.imported == 0
    assert any("was forgotten on" in str(each) for each in report.notices)


@pytest.mark.parametrize("words_only", [False, True])
def test_a_person_is_taken_out_of_whom_calls_were_shared_with(
    published: Database, *, words_only: bool
) -> None:
    meeting = {"title": "Call three", "shared_with": [ANN, "Sales"],
               "segments": [{"speaker": "Eva", "text": "Nobody of them is here.", "start": 0,
                             "end": 4}]}  # fmt: skip
    import_meeting(published, "s", "three", meeting)
    forget(published, Request(person=ANN, words_only=words_only))
    import_meeting(published, "s", "three", meeting)
    shared = "SELECT shared_with FROM call_details WHERE recording_id = 's-three'"
    assert rows(published, shared) == [(["Sales"],)]
    assert ANN not in everywhere(published)


def test_a_person_who_is_in_no_call_is_kept_out_all_the_same(published: Database) -> None:
    proof = forget(published, Request(person="eve@x.example"))
    assert proof.number is not None
    import_meeting(
        published,
        "s",
        "late",
        {
            "title": "Late",
            "invitees": ["Eve@x.example", BOB],
            "segments": [{"email": "eve@x.example", "text": "I was never here."}],
        },
    )
    assert "never here" not in everywhere(published)
    invited = "SELECT email FROM call_people WHERE recording_id = 's-late'"
    assert rows(published, invited) == [(BOB,)]
