"""Inputs that failed once, with what is right; the files lie beside the checkout."""

from collections.abc import Sequence
from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.recorders.importing import ImportReport, import_recordings
from embedding_assets_tests.calls import rows
from embedding_assets_tests.checkout import ROOT
from embedding_assets_tests.machine import needing

CASES = ROOT.parent / "shared" / "cases"
pytestmark = needing("the shared cases and transcripts")

Said = tuple[str | None, float | None, float | None, str]


def read(database: Database, *names: str) -> ImportReport:
    return import_recordings(database, [CASES / name for name in names])


def said(database: Database, recording_id: str | None = None) -> list[Said]:
    query = """
        SELECT speaker_name, start_seconds, end_seconds, text FROM fathom_transcripts
        WHERE recording_id = coalesce(%s, recording_id) ORDER BY recording_id, position
    """
    return [tuple(row) for row in rows(database, query, [recording_id])]


def call(database: Database) -> Any:
    (row,) = rows(database, "SELECT recording_id, title, recorded_at FROM fathom_calls")
    return row


def speakers(database: Database) -> list[str | None]:
    return [speaker for speaker, *_ in said(database)]


def words(database: Database) -> list[str]:
    return [text for *_, text in said(database)]


def notes(report: ImportReport) -> str:
    return "\n".join(map(str, report.notices))


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_two_files_of_one_name_are_two_calls(database: Database, names: Sequence[str]) -> None:
    for name in ("a", "b"):
        read(database, f"{name}/transcript.vtt")
    assert rows(database, "SELECT count(*) FROM fathom_calls") == [(2,)]
    before = words(database)
    for name in reversed(names):
        report = read(database, f"{name}/transcript.vtt")
        assert (report.imported, report.unchanged) == (0, 1)
    assert words(database) == before


def test_rolling_captions_are_said_once(database: Database) -> None:
    read(database, "youtube.vtt")
    assert [(start, text) for _, start, _, text in said(database)] == [
        (0.08, "welcome to the depot"),
        (2.56, "today we audit"),
    ]


@pytest.mark.parametrize(
    ("name", "text"), [("cp1252.srt", "Café “order”"), ("utf16.vtt", "Café order")]
)
def test_other_encodings_are_read_with_a_note(database: Database, name: str, text: str) -> None:
    report = read(database, name)
    assert words(database) == [text]
    assert report.rejected == []
    assert "UTF-16" in notes(report) or "1252" in notes(report)
    if name == "cp1252.srt":
        assert speakers(database) == ["Ines"]


def test_notes_name_line_and_field(database: Database) -> None:
    report = read(database, "misc.vtt")
    assert report.rejected == []
    assert report.notices
    for notice in report.notices:
        assert notice.field is not None or notice.place.rpartition(":")[2].isdigit(), notice


def test_google_meet(database: Database) -> None:
    read(database, "gmeet.txt")
    _, title, recorded_at = call(database)
    assert title == "Depot audit"
    assert recorded_at.isoformat() == "2026-03-04T10:00:00+00:00"
    assert [(speaker, start) for speaker, start, *_ in said(database)] == [
        ("Ines Okoro", 0.0), ("Mikkel Lund", 0.0), ("Ines Okoro", 302.0),
    ]  # fmt: skip


def test_google_meets_captions(database: Database) -> None:
    read(database, "meet.sbv")
    assert [(start, end) for _, start, end, _ in said(database)] == [(1.0, 3.0), (3.5, 5.0)]
    assert None not in speakers(database)


def test_otter(database: Database) -> None:
    report = read(database, "otter.txt")
    assert call(database)[1] == "Depot audit"
    assert [start for _, start, *_ in said(database)] == [3.0, 9.0]
    assert None not in speakers(database)
    assert "zone" in notes(report)


def test_fireflies(database: Database) -> None:
    read(database, "fireflies.json")
    recording_id, _, recorded_at = call(database)
    assert recording_id == "ff_8a1"
    assert recorded_at.isoformat() == "2026-03-04T10:00:00+00:00"
    assert [(start, end) for _, start, end, _ in said(database)] == [(3.1, 4.2), (9.0, 10.0)]
    assert None not in speakers(database)


def test_gong(database: Database) -> None:
    read(database, "gong.json")
    assert call(database)[0] == "7782342274025937895"
    assert len(said(database)) == 2
    assert said(database)[0][1] == 460.23


def test_a_meeting_without_a_transcript_waits(database: Database) -> None:
    report = read(database, "fathom_page.json")
    assert report.rejected == []
    waiting = rows(database, "SELECT recording_id FROM call_details WHERE awaits_transcript")
    assert waiting == [(call(database)[0],)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("assemblyai.json", {"A", "B"}),
        ("deepgram.json", {"0", "Speaker 0"}),
        ("whisper.json", {None}),
        ("whisperx.json", {"SPEAKER_00"}),
    ],
)
def test_speech_to_text(database: Database, name: str, expected: set[str | None]) -> None:
    report = read(database, name)
    assert report.rejected == []
    assert all(start is not None for _, start, *_ in said(database))
    told = {None if s is None else s.removeprefix("Speaker ") for s in speakers(database)}
    assert told <= {None if s is None else s.removeprefix("Speaker ") for s in expected}


def test_aws_transcribe(database: Database) -> None:
    read(database, "aws-transcribe.json")
    assert call(database)[0] == "aws-1"
    ((speaker, start, _, text),) = said(database)
    assert (speaker, start, text.rstrip(".")) == ("spk_0", 0.5, "Thanks")


def test_what_came_is_stored_with_its_escapes(database: Database) -> None:
    read(database, "escapes.jsonl")
    assert "\x1b" in call(database)[1]


def test_a_sentence_with_a_colon_is_no_speaker(database: Database) -> None:
    read(database, "false-speakers-zoom.vtt")
    assert {speaker for speaker in speakers(database) if speaker} == {"Ann Bee", "Cee Dee"}
    unnamed = [text for speaker, *_, text in said(database) if speaker is None]
    assert len(unnamed) == 2
    assert unnamed[0].startswith("The most important thing:")
    assert unnamed[1].startswith("Reminder:")


def test_webexs_speakers_are_in_its_cue_ids(database: Database) -> None:
    read(database, "webex.vtt")
    assert set(speakers(database)) == {"Ann Bee", "Cee Dee"}


def test_several_speakers_in_one_cue(database: Database) -> None:
    read(database, "several-speakers.srt")
    assert speakers(database) == ["Ann", "Bob", "Ann", "Bob", "Ann", "Bob", None]


def test_milliseconds_are_told(database: Database) -> None:
    report = read(database, "milliseconds.jsonl")
    assert "milliseconds" in notes(report)


def test_teams_ids_without_blank_lines(database: Database) -> None:
    read(database, "teams-ids-no-blank.vtt")
    assert words(database) == ["One.", "Two."]


def test_a_call_without_a_title_gets_one(database: Database) -> None:
    report = read(database, "fathom-untitled.json")
    assert report.rejected == []
    assert call(database)[1]


def test_an_arrow_among_words(database: Database) -> None:
    report = read(database, "arrow-in-words.vtt")
    assert report.rejected == []
    assert any("-->" in text for text in words(database))


def test_the_whole_folder_is_read(database: Database) -> None:
    report = import_recordings(database, [CASES])
    assert [str(each) for each in report.rejected] == []
    assert "README.md" in notes(report)
