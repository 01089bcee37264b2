"""The commands by which calls come in and people are known, as somebody types them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embedding_assets_tests.checkout import Checkout, short_folder
from embedding_assets_tests.loopback_fathom import LoopbackFathom

WORDS = "The walrus eats forty kilos of clams. The heron stands in the water. Nothing more today."
VTT = """WEBVTT

1
00:00:01.000 --> 00:00:04.000
Ann Bee: The walrus eats forty kilos of clams every day.

2
00:00:04.500 --> 00:00:03.000
Cee Dee: That is a lot of clams for one walrus.
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that the server's user may reach."""
    with short_folder("recorders") as folder:
        yield folder


@pytest.fixture(scope="module")
def cli(folder: Path) -> Iterator[Checkout]:
    """The command in a checkout of its own, with the offline model."""
    cli = Checkout(folder / "checkout", EMBEDDING_ASSETS_HOME=str(folder / "home"))
    try:
        cli("init")
        yield cli
    finally:
        cli("stop")


@pytest.fixture
def fathom() -> Iterator[LoopbackFathom]:
    with LoopbackFathom(["ann-secret", "bob-secret"]) as fathom:
        yield fathom


def environment(fathom: LoopbackFathom, keys: str) -> dict[str, str]:
    since = f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d}"
    return {
        "FATHOM_API_KEYS": keys, "FATHOM_BASE_URL": fathom.base_url, "FATHOM_SINCE": since
    }  # fmt: skip


def test_notes_name_file_line_and_field_whatever_the_files_name(
    cli: Checkout, folder: Path
) -> None:
    odd = folder / "dir[" / "Talk [x].en.vtt"
    odd.parent.mkdir()
    odd.write_text(VTT)
    (odd.parent / "notes.docx").write_bytes(b"PK\x03\x04")
    result = cli("import", odd.parent)
    assert f"note: {odd}:" in result.stderr
    assert "notes.docx" in result.stderr
    assert "1 imported, 0 unchanged, 0 rejected" in result.stdout


def test_less_comes_in_only_with_replace(cli: Checkout, folder: Path) -> None:
    path = folder / "long.jsonl"
    turns = [{"text": f"Sentence {n} of the depot audit."} for n in range(12)]
    path.write_text(json.dumps({"recording_id": "long", "title": "A", "segments": turns}))
    cli("import", path)
    path.write_text(json.dumps({"recording_id": "long", "title": "A", "segments": turns[:2]}))
    kept = cli("import", path)
    assert "the stored one was kept" in kept.stderr
    assert "0 imported, 1 unchanged" in kept.stdout
    assert "1 imported, 0 unchanged" in cli("import", path, "--replace").stdout


def test_fathom_is_read_now(cli: Checkout, fathom: LoopbackFathom) -> None:
    now = datetime.now(UTC)
    fathom.add("100", now - timedelta(hours=2), WORDS)
    fathom.add("101", now - timedelta(hours=3), WORDS, recording_id=None)
    fathom.add("102", now - timedelta(hours=4), WORDS, seen_by=["bob-secret"])
    env = environment(fathom, "ann=ann-secret bob=bob-secret")
    result = cli("sync", "fathom", env=env)
    assert "ann: everything new is read, 1 calls added or changed, 1 unreadable" in result.stdout
    assert "could not be read: recording_id: is null, not text" in result.stderr
    report = json.loads(cli("sync", "fathom", "--json", env=env).stdout)
    assert [key["changed"] for key in report["keys"]] == [[], []]
    checks = json.loads(cli("monitor", "--json", env=env, code=1).stdout)["checks"]
    (found,) = [check for check in checks if check["name"] == "recorder_sync"]
    assert (found["figures"]["there"], found["figures"]["here"]) == (5, 3)

    fathom.refused = {"bob-secret"}
    result = cli("sync", "fathom", env=env, code=1)
    assert "key bob: Fathom refuses the key (401)" in result.stderr
    assert "secret" not in result.stdout + result.stderr
    refused = cli("sync", "fathom", "--forget", "bob", env=env, code=1)
    assert "take it out there first" in refused.stderr
    env = environment(fathom, "ann=ann-secret")
    assert "bob is forgotten" in cli("sync", "fathom", "--forget", "bob", env=env).stdout
    assert (
        "no key has the name bob"
        in cli("sync", "fathom", "--forget", "bob", env=env, code=1).stderr
    )


def test_without_keys_the_setting_is_named(cli: Checkout) -> None:
    assert "FATHOM_API_KEYS is not set" in cli("sync", "fathom", code=2).stderr
    wrong = cli("sync", "fathom", env={"FATHOM_API_KEYS": "topsecret"}, code=2).stderr
    assert "FATHOM_API_KEYS: part 1 is not of the form name=key" in wrong
    assert "topsecret" not in wrong


def test_people_are_listed_merged_and_searched_for(cli: Checkout) -> None:
    lines = [
        {"recording_id": "p1", "title": "Depot", "invitees": [{"email": "eva@x.example",
         "name": "Eva [/x] \x1b[31m"}], "segments": [{"text": "The walrus eats clams."}]},
        {"recording_id": "p2", "title": "Depot", "recorded_by": {"email": "eva@home.example"},
         "segments": [{"text": "A walrus eats many clams."}]},
    ]  # fmt: skip
    cli("import", "-", given="\n".join(map(json.dumps, lines)))
    cli("run")
    shown = cli("people", "list", "eva").stdout
    assert "eva@x.example" in shown
    assert "Eva [/x]" in shown
    assert "\x1b" not in shown

    def found(email: str) -> set[str]:
        hits = json.loads(cli("search", "walrus", "--person", email, "--json").stdout)
        return {hit["recording_id"] for hit in hits}

    assert found("eva@x.example") == {"p1"}
    assert "eva@home.example" in cli("people", "merge", "EVA@x.example", "eva@home.example").stdout
    assert found("eva@x.example") == found("Eva@Home.example") == {"p1", "p2"}
    listed = json.loads(cli("people", "list", "home", "--json").stdout)
    assert [(each["email"], each["aliases"], each["calls"]) for each in listed] == [
        ("eva@x.example", ["eva@home.example"], 2)
    ]
    cli("people", "split", "eva@x.example", "eva@home.example")
    assert found("eva@home.example") == {"p2"}
    assert (
        "nobody has the address"
        in cli("people", "merge", "eva@x.example", "dan@x.example", code=1).stderr
    )


def test_access_is_switched_on_shown_and_off_again(cli: Checkout) -> None:
    line = {"recording_id": "a1", "title": "Depot [/x]", "recorded_by": {"email": "ann@x.example"},
            "segments": [{"text": "An axolotl lives in the depot."}]}  # fmt: skip
    other = {**line, "recording_id": "a2", "recorded_by": {"email": "bob@x.example"}}
    cli("import", "-", given=json.dumps(line) + "\n" + json.dumps(other))
    unknown = {"recording_id": "a3", "title": "D", "segments": [{"text": "An axolotl again."}]}
    cli("import", "-", "--as", "Dan@x.example", given=json.dumps(unknown))
    cli("run")
    assert "access is off" in cli("access", "show").stdout
    assert "access is off" in cli("search", "axolotl", "--reader", "ann@x.example", code=2).stderr

    def found(*options: str) -> set[str]:
        hits = json.loads(cli("search", "axolotl", "--json", *options).stdout)
        return {hit["recording_id"] for hit in hits if hit["recording_id"].startswith("a")}

    env = {"ACCESS_ADMINS": "boss@x.example", "ACCESS_POLICY": "owner"}
    shown = cli("access", "on", env=env).stdout
    assert "by the policy owner, externals left out; admins: boss@x.example" in shown
    assert "roles that see every call: postgres" in shown
    try:
        assert found("--reader", "Ann@X.example") == {"a1"}
        assert found("--reader", "dan@x.example") == {"a3"}
        assert found("--reader", "boss@x.example") == found() == {"a1", "a2", "a3"}
        assert "ann@x.example: recorded it" in cli("access", "show", "a1").stdout
        of_ann = cli("access", "show", "ann@x.example").stdout
        assert "ann@x.example sees 1 calls" in of_ann
        assert "a1  Depot [/x]: ann@x.example recorded it" in of_ann
        assert "sees none" in cli("access", "show", "eve@x.example", code=1).stderr
    finally:
        assert "access is off" in cli("access", "off").stdout


def test_a_call_is_forgotten_after_being_asked(cli: Checkout) -> None:
    cli("import", "-", given=json.dumps({"recording_id": "f1", "title": "Gone",
        "segments": [{"text": "A basilisk is forgotten."}]}))  # fmt: skip
    cli("run")
    shown = cli("forget", "--recording", "f1", "--dry-run").stdout
    assert "calls: f1" in shown
    assert "nothing was deleted" in shown
    cli("forget", "--recording", "f1", given="n\n", code=1)
    assert json.loads(cli("search", '"basilisk"', "--json").stdout)
    proof = json.loads(cli("forget", "--recording", "f1", "--yes", "--json").stdout)
    assert proof["recording_ids"] == ["f1"]
    assert proof["counts"]["transcript_chunks"] == proof["counts"]["dagster_partitions"] == 1
    assert proof["not_reached"]
    assert json.loads(cli("search", '"basilisk"', "--json").stdout) == []
    again = cli("import", "-", given=json.dumps({"recording_id": "f1", "title": "Gone",
        "segments": [{"text": "A basilisk is forgotten."}]}))  # fmt: skip
    assert "was forgotten on" in again.stderr
    assert "none is concerned" in cli("forget", "--person", "no@x.example", "--yes").stdout
    assert "say one of" in cli("forget", code=1).stderr
