"""Which call a file is: by its words, wherever it lies, and never two calls in one."""

from pathlib import Path
from typing import Any

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.recorders.importing import ImportReport, import_meeting, import_recordings
from embedding_assets_tests.calls import rows

AUDIT = [f"In row {n} of the depot we count the pallets of customer {n * 7}." for n in range(30)]
SALES = [
    f"The price of truck {n} is a matter of the contract with dealer {n * 3}." for n in range(30)
]


def vtt(path: Path, sentences: list[str], *, speakers: bool = True, shift: float = 0.0) -> Path:
    cues = []
    for number, sentence in enumerate(sentences):
        start, name = number * 4 + shift, ("<v Ann Bee>", "<v Cee Dee>")[number % 2]
        cues.append(
            f"{_clock(start)} --> {_clock(start + 3)}\n{name if speakers else ''}{sentence}\n"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("WEBVTT\n\n" + "\n".join(cues))
    return path


def _clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{seconds % 60:06.3f}"


def take(database: Database, *paths: Path, **options: Any) -> ImportReport:
    return import_recordings(database, paths, **options)


def calls(database: Database) -> list[str]:
    return [id_ for (id_,) in rows(database, "SELECT recording_id FROM fathom_calls ORDER BY 1")]


def speakers(database: Database) -> set[str | None]:
    query = "SELECT DISTINCT speaker_name FROM fathom_transcripts"
    return {name for (name,) in rows(database, query)}


def test_a_name_that_is_taken_never_joins_two_calls(database: Database, tmp_path: Path) -> None:
    report = take(database, vtt(tmp_path / "a/call.vtt", AUDIT))
    assert (report.imported, calls(database)) == (1, ["call"])
    report = take(database, vtt(tmp_path / "b/call.vtt", SALES))
    assert len(calls(database)) == 2
    assert any("call is another call's: this one is call-" in str(each) for each in report.notices)
    again = take(database, tmp_path / "a/call.vtt", tmp_path / "b/call.vtt")
    assert (again.unchanged, len(calls(database))) == (2, 2)


def test_a_file_that_was_moved_and_renamed_is_known_again(
    database: Database, tmp_path: Path
) -> None:
    take(database, vtt(tmp_path / "call.vtt", AUDIT))
    (tmp_path / "call.vtt").rename(tmp_path / "depot audit.vtt")
    report = take(database, tmp_path / "depot audit.vtt")
    assert calls(database) == ["call"]
    assert any("read before from" in str(each) for each in report.notices)


def test_a_corrected_file_in_its_place_is_the_same_call(database: Database, tmp_path: Path) -> None:
    path = vtt(tmp_path / "call.vtt", AUDIT)
    take(database, path)
    vtt(path, [*AUDIT[:20], *SALES[:10]])
    report = take(database, path)
    assert (report.imported, calls(database)) == (1, ["call"])


@pytest.mark.parametrize("order", [0, 1])
def test_of_two_files_of_one_call_the_one_with_names_wins_in_any_order(
    database: Database, tmp_path: Path, order: int
) -> None:
    named = vtt(tmp_path / "call.transcript.vtt", AUDIT)
    bare = vtt(tmp_path / "call.cc.vtt", AUDIT, speakers=False)
    pair = [named, bare]
    for path in pair if order else reversed(pair):
        take(database, path)
    assert len(calls(database)) == 1
    assert speakers(database) == {"Ann Bee", "Cee Dee"}


def test_a_file_named_like_a_recorders_id_does_not_overwrite_its_call(
    database: Database, tmp_path: Path
) -> None:
    said = [{"speaker": "Ann", "text": sentence, "start": n} for n, sentence in enumerate(AUDIT)]
    import_meeting(database, "dialpad", "7", {"title": "A call", "segments": said})
    assert calls(database) == ["dialpad-7"]
    take(database, vtt(tmp_path / "dialpad-7.vtt", SALES))
    assert len(calls(database)) == 2
    query = "SELECT count(*) FROM fathom_transcripts WHERE recording_id = 'dialpad-7'"
    assert rows(database, query) == [(30,)]


def test_import_meeting_may_be_called_again(database: Database) -> None:
    meeting = {
        "title": "A call",
        "recorded_at": "2026-03-04T10:00:00Z",
        "segments": [{"speaker": "Ann", "start": 0, "end": 4, "text": "The walrus eats clams."}],
    }
    first = import_meeting(database, "dialpad", "7", meeting)
    again = import_meeting(database, "dialpad", "7", meeting)
    other = import_meeting(database, "aircall", "7", meeting)
    assert (first.recording_ids, first.imported) == (["dialpad-7"], 1)
    assert (again.recording_ids, again.unchanged) == (["dialpad-7"], 1)
    assert other.recording_ids == ["aircall-7"]
    assert any("may be the same call as dialpad-7" in str(each) for each in other.notices)
    bad = import_meeting(database, "dialpad", "a,b", meeting)
    assert (bad.recording_ids, bad.rejected[0].field) == ([], "recording_id")


def test_likely_doubles_are_named(database: Database, tmp_path: Path) -> None:
    lines = [{"recording_id": "x1", "title": "Depot", "recorded_at": "2026-03-04T10:00:00Z",
              "segments": [{"text": "First words."}]},
             {"recording_id": "x2", "title": "depot", "recorded_at": "2026-03-04T10:03:00Z",
              "segments": [{"text": "Other words."}]},
             {"recording_id": "x3", "title": "Depot", "recorded_at": "2026-03-04T11:00:00Z",
              "segments": [{"text": "More words."}]}]  # fmt: skip
    reports = [import_meeting(database, "s", str(each["recording_id"]), each) for each in lines]
    told = [[str(each) for each in report.notices if "may be" in str(each)] for report in reports]
    assert told[0] == told[2] == []
    assert "may be the same call as s-x1: title and time are the same" in told[1][0]


def test_less_is_taken_only_when_told(database: Database, tmp_path: Path) -> None:
    path = vtt(tmp_path / "call.vtt", AUDIT)
    take(database, path)
    vtt(path, AUDIT[:4])
    report = take(database, path)
    assert any("the stored one was kept" in str(each) for each in report.notices)
    assert rows(database, "SELECT count(*) FROM fathom_transcripts") == [(30,)]
    take(database, path, replace_more=True)
    assert rows(database, "SELECT count(*) FROM fathom_transcripts") == [(4,)]
