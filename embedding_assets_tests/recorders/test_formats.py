"""Each recorder's export: what arrives, and that its content tells its format."""

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from embedding_assets.recorders import Notice, Rejection, read
from embedding_assets.recorders.model import Person, Recording
from embedding_assets_tests.recorders import exports

# Speaker and start of both segments, by the export.
SPOKEN: dict[str, list[tuple[str | None, float | None]]] = {
    "otter.txt": [("Ines Okoro", 3.0), ("Unknown Speaker", 3609.0)],
    "meet.sbv": [("Ines Okoro", 1.0), ("Mikkel Lund", 3.5)],
    "teams.vtt": [("Ines Okoro", 16.246), ("Mikkel Lund", 18.0)],
    "webex.vtt": [("Ines Okoro", 1.0), ("Mikkel Lund", 3.0)],
    "fireflies.json": [("Ines Okoro", 3.1), ("Speaker 1", 9.0)],
    "gong.json": [("Ines Okoro", 460.23), ("Mikkel Lund", 462.98)],
    "tldv.json": [("Ines Okoro", 3.0), ("Mikkel Lund", 9.0)],
    "granola.json": [("Ines Okoro", 0.0), ("Speaker A", 9.0)],
    "grain.json": [("Ines", 3.1), ("Bo", 9.0)],
    "read-ai.json": [("Ines Okoro", 3.0), ("Mikkel Lund", 9.0)],
    "whisper.json": [(None, 3.1), (None, 9.0)],
    "whisper-cpp.json": [(None, 3.1), (None, 9.0)],
    "whisperx.json": [("SPEAKER_00", 3.1), ("SPEAKER_01", 9.0)],
    "assemblyai.json": [("A", 3.1), ("B", 9.0)],
    "assemblyai-words.json": [(None, 3.1), (None, 9.0)],
    "deepgram.json": [("0", 3.1), ("1", 9.0)],
    "deepgram-channels.json": [("Channel 1", 3.1), ("Channel 0", 9.0)],
    "aws.json": [("spk_0", 3.1), ("spk_1", 9.0)],
}
OWN_IDS = {
    "fireflies.json": "ff_1",
    "gong.json": "77",
    "tldv.json": "m1",
    "granola.json": "not_1",
    "read-ai.json": "01J",
    "assemblyai.json": "aa-1",
    "assemblyai-words.json": "aa-2",
    "deepgram.json": "dg-1",
    "deepgram-channels.json": "dg-2",
    "aws.json": "aws-2",
}


def _read(path: Path) -> tuple[Recording, list[Notice]]:
    *notices, recording = read([path])
    assert isinstance(recording, Recording), recording
    assert all(isinstance(notice, Notice) for notice in notices)
    return recording, [notice for notice in notices if isinstance(notice, Notice)]


@pytest.mark.parametrize("name", SPOKEN)
def test_an_export_is_known_by_its_content_and_read(tmp_path: Path, name: str) -> None:
    path = exports.write(tmp_path, name)
    recording, _ = _read(path)
    said = [segment.text.rstrip(".?") for segment in recording.segments]
    assert said == ["Morning all", "Which depot"]
    assert [(s.speaker, s.start_seconds) for s in recording.segments] == SPOKEN[name]
    if name in OWN_IDS:
        assert (recording.recording_id, recording.file) == (OWN_IDS[name], None)
    else:
        assert (recording.recording_id, recording.file) == (path.name, str(path))


def test_google_meets_document(tmp_path: Path) -> None:
    recording, notices = _read(exports.write(tmp_path, "meet.txt"))
    assert notices == []
    assert recording.title == "Depot audit"
    assert recording.recorded_at is not None
    assert recording.recorded_at.isoformat() == "2026-03-04T10:00:00-05:00"
    assert recording.duration_seconds == 2712
    assert recording.invitees == (Person(None, "Ines Okoro"), Person(None, "Mikkel Lund"))
    assert [(s.speaker, s.text, s.start_seconds) for s in recording.segments] == [
        ("Ines Okoro", "Morning all.\nIt goes on, with a plan: count first.", 0.0),
        ("Mikkel Lund", "Which depot?", 0.0),
        ("Late Comer", "I am late.", 302.0),
        ("Late Comer", "Sorry.", 302.0),
    ]


def test_otters_text_has_a_date_without_a_zone_which_is_said(tmp_path: Path) -> None:
    recording, notices = _read(exports.write(tmp_path, "otter.txt"))
    assert recording.recorded_at is not None
    assert recording.recorded_at.isoformat() == "2026-03-04T10:00:00+00:00"
    assert (recording.title, recording.duration_seconds) == ("Depot audit", 1450)
    assert [(n.place.rpartition(":")[2], n.field) for n in notices] == [("2", "date")]
    assert "no time zone" in notices[0].reason


def test_fathoms_text(tmp_path: Path) -> None:
    recording, notices = _read(exports.write(tmp_path, "fathom.txt"))
    assert (recording.title, recording.url) == ("Depot audit", "https://example.com/calls/1")
    assert (recording.recorded_at, recording.duration_seconds) == (None, 1860)
    assert [(s.speaker, s.text, s.start_seconds) for s in recording.segments] == [
        ("Ines Okoro", "Morning all.", 0.0),
        ("Mikkel Lund", "Which depot?\nThe large one.", 3609.0),
    ]
    assert "no year" in notices[0].reason


def test_graphs_metadata_tells_when_the_call_began(tmp_path: Path) -> None:
    recording, _ = _read(exports.write(tmp_path, "teams.vtt"))
    assert recording.recorded_at is not None
    assert recording.recorded_at.isoformat() == "2026-03-04T10:00:00+00:00"
    assert recording.language == "en-us"


def test_who_was_invited_and_who_recorded_is_read(tmp_path: Path) -> None:
    gong, _ = _read(exports.write(tmp_path, "gong.json"))
    assert (gong.recorded_by_name, gong.recorded_by_email) == ("Ines Okoro", "ines@example.com")
    assert gong.invitees == (
        Person("ines@example.com", "Ines Okoro", is_external=False),
        Person(None, "Mikkel Lund", is_external=True),
    )
    assert (gong.language, gong.duration_seconds) == ("eng", 1800)
    fireflies, _ = _read(exports.write(tmp_path, "fireflies.json"))
    assert fireflies.recorded_by_email == "ines@example.com"
    assert [p.email for p in fireflies.invitees] == ["ines@example.com", "mikkel@example.org"]
    assert (fireflies.duration_seconds, fireflies.url) == (1470, "https://example.com/view/ff_1")
    for name in ("tldv.json", "granola.json", "read-ai.json"):
        recording, _ = _read(exports.write(tmp_path, name))
        assert recording.recorded_by_email == "ines@example.com"
        assert recording.invitees == (Person("mikkel@example.org", "Mikkel Lund"),)
        assert recording.title == "Depot audit"


def test_gong_without_parties_keeps_the_speakers_apart(tmp_path: Path) -> None:
    path = tmp_path / "gong.json"
    path.write_text(json.dumps({"callTranscripts": exports.GONG["callTranscripts"]}))
    recording, notices = _read(path)
    assert [s.speaker for s in recording.segments] == ["Speaker 6", "Speaker 7"]
    assert {n.field for n in notices} == {"parties", "title"}


@pytest.mark.parametrize("status", ["processing", "error"])
def test_what_is_not_transcribed_yet_is_refused_with_the_mend(tmp_path: Path, status: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**exports.ASSEMBLYAI, "status": status}))
    (rejection,) = read([path])
    assert isinstance(rejection, Rejection)
    assert (rejection.field, "later" in rejection.reason) == ("status", True)


@pytest.mark.parametrize("name", sorted(exports.EXPORTS))
def test_several_in_one_file_are_read_where_the_form_allows_it(tmp_path: Path, name: str) -> None:
    content = exports.EXPORTS[name]
    if isinstance(content, str):
        return
    path = tmp_path / "all.jsonl"
    lines = [content, {"recording_id": "last", "title": "t", "segments": [{"text": "x"}]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [item for item in read([path]) if isinstance(item, Recording)]
    assert [item.recording_id for item in found][-1] == "last"
    assert len(found) == 2


def _broken(value: Any) -> list[Any]:
    """The document with each value in it replaced by each of some wrong ones, one at a time."""
    found: list[Any] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        copies = [None, 7, "x", [], {}, [None], True, "\0", 1e300]
        if isinstance(inner, dict | list):
            copies += _broken(inner)
        for copy in copies:
            changed = dict(value) if isinstance(value, dict) else list(value)
            changed[key] = copy
            found.append(changed)
    return found


@pytest.mark.parametrize(
    "name", [name for name in exports.EXPORTS if not isinstance(exports.EXPORTS[name], str)]
)
def test_no_wrong_value_makes_a_format_fail(tmp_path: Path, name: str) -> None:
    path = tmp_path / "call.json"
    for document in _broken(exports.EXPORTS[name]):
        path.write_text(json.dumps(document))
        for item in read([path]):
            if isinstance(item, Recording):
                assert all(isinstance(s.text, str) and "\0" not in s.text for s in item.segments)
                assert "\0" not in repr(astuple(item))
            else:
                assert isinstance(item, Rejection)
