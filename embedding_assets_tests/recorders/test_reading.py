import gzip
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import Notice, Rejection, read, reading
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.samples import shipped
from embedding_assets.recorders.samples.generate import generate, write_jsonl
from embedding_assets_tests.machine import needing

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "meetings.jsonl.gz"


def _record(**changes: Any) -> dict[str, Any]:
    record = {
        "recording_id": 100000001,
        "title": "A call",
        "recorded_at": "2026-10-01T09:00:00Z",
        "segments": [
            {"speaker": "Ann", "start": 0, "text": "Hello."},
            {"speaker": "Bo", "start": 2.5, "text": "Hi, Ann."},
        ],
    }
    return {**record, **changes}


def _segments(**changes: Any) -> list[dict[str, Any]]:
    return [{"speaker": "Ann", "start": 0, "text": "Hello.", **changes}]


def _write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _recordings(*paths: Path) -> list[Recording]:
    items = list(read(paths))
    assert all(isinstance(item, Recording) for item in items), items
    return [item for item in items if isinstance(item, Recording)]


def test_json_lines_plain_and_gzipped(tmp_path: Path) -> None:
    plain = _write(tmp_path / "calls.jsonl", _record(), _record(recording_id="b"))
    first, second = _recordings(plain)
    assert (first.recording_id, second.recording_id) == ("100000001", "b")
    assert first.segments[1] == Segment(1, "Bo", "Hi, Ann.", 2.5)
    assert first.recorded_at is not None
    assert first.recorded_at.isoformat() == "2026-10-01T09:00:00+00:00"
    zipped = tmp_path / "calls.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert _recordings(zipped) == [first, second]


MEETING = {
    "recording_id": 123456789,
    "title": "Quarterly review",
    "created_at": "2026-09-03T10:00:00Z",
    "recording_start_time": "2026-09-03T10:01:00Z",
    "recording_end_time": "2026-09-03T10:31:00Z",
    "url": "https://example.com/calls/1",
    "recorded_by": {"name": "Ann", "email": "ann@example.com"},
    "calendar_invitees": [{"name": "Bo Berg", "email": "bo@example.com"}],
    "default_summary": None,
    "transcript": [
        {"speaker": {"display_name": "Ann"}, "text": "Hello.", "timestamp": "00:00:01"},
        {
            "speaker": {
                "display_name": None,
                "matched_calendar_invitee_email": "bo@example.com",
            },
            "text": "Hi.",
            "timestamp": "01:02:03",
        },
    ],
}


@pytest.mark.parametrize("shape", ["meeting", "page", "list", "pretty"])
def test_fathom_meetings_alone_and_in_pages(tmp_path: Path, shape: str) -> None:
    document: Any = {
        "meeting": MEETING,
        "page": {"limit": 1, "next_cursor": None, "items": [MEETING]},
        "list": [MEETING],
        "pretty": MEETING,
    }[shape]
    path = tmp_path / "fathom.json"
    path.write_text(json.dumps(document, indent=2 if shape == "pretty" else None))
    (recording,) = _recordings(path)
    assert recording.recording_id == "123456789"
    assert [s.speaker for s in recording.segments] == ["Ann", "Bo Berg"]
    assert [s.start_seconds for s in recording.segments] == [1, 3723]
    assert (recording.duration_seconds, recording.source_platform) == (1800, "fathom")


@pytest.mark.parametrize("absent", ["recorded_by", "calendar_invitees", "url", "default_summary"])
def test_what_fathom_leaves_out_may_be_missing_or_null(tmp_path: Path, absent: str) -> None:
    missing = {key: value for key, value in MEETING.items() if key != absent}
    for number, meeting in enumerate([missing, {**MEETING, absent: None}]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(meeting))
        assert len(_recordings(path)) == 1


@pytest.mark.parametrize("transcript", [None, [], "Error: not ready"])
def test_a_meeting_without_transcript_waits_for_it(tmp_path: Path, transcript: Any) -> None:
    path = tmp_path / "page.json"
    waiting = {**MEETING, "recording_id": 2, "transcript": transcript}
    path.write_text(json.dumps({"items": [MEETING, waiting]}))
    first, notice, second = read([path])
    assert isinstance(first, Recording)
    assert isinstance(notice, Notice)
    assert "items[1]" in notice.place
    assert isinstance(second, Recording)
    assert (second.awaits_transcript, second.segments) == (True, [])


VTT = """\ufeffWEBVTT

NOTE written by a machine

1
00:00:01.000 --> 00:00:03.500
<v Dana Reyes>Hello <i>there</i> &amp; welcome</v>

00:04.000 --> 00:06.250 align:start
Priya Shah: Note: two
lines

3
01:00:07.000 --> 01:00:08.000
no speaker {here}
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_webvtt_with_voices_and_zooms_names(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "GMT20240131-090500_Recording.transcript.vtt"
    path.write_bytes(VTT.replace("\n", ending).encode())
    notice, recording = read([path])
    assert isinstance(recording, Recording)
    assert isinstance(notice, Notice)
    assert (notice.place, notice.field) == (f"{path}:14", "segments[2].speaker")
    assert recording.recording_id == "GMT20240131-090500_Recording"
    assert recording.recorded_at is not None
    assert recording.recorded_at.isoformat() == "2024-01-31T09:05:00+00:00"
    assert [(s.speaker, s.text, s.start_seconds, s.end_seconds) for s in recording.segments] == [
        ("Dana Reyes", "Hello there & welcome", 1.0, 3.5),
        ("Priya Shah", "Note: two\nlines", 4.0, 6.25),
        (None, "no speaker {here}", 3607.0, 3608.0),
    ]


def test_srt(tmp_path: Path) -> None:
    path = tmp_path / "weekly sync.srt"
    path.write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nAnn: hi\n\n2\n00:00:02,500 --> 00:00:04,000\nBo: yes\n"
    )
    (recording,) = _recordings(path)
    assert [(s.speaker, s.text, s.start_seconds) for s in recording.segments] == [
        ("Ann", "hi", 1.0),
        ("Bo", "yes", 2.5),
    ]


NAN = '{"recording_id": 1, "title": "x", "segments": [{"text": "a", "start": NaN}]}'
DEEP = "[" * 100_000
BAD_LINES = {
    "not JSON": ('{"recording_id": 1,', None, "not JSON"),
    "no object": ("12", None, "not an object"),
    "a missing id": (json.dumps({"title": "x", "segments": []}), "recording_id", "missing"),
    "a missing title": (json.dumps({"recording_id": 1, "segments": []}), "title", "missing"),
    "missing segments": (json.dumps({"recording_id": 1, "title": "x"}), "segments", "missing"),
    "no segments": (json.dumps(_record(segments=[])), "segments", "none"),
    "no text": (json.dumps(_record(segments=_segments(text="  "))), "segments", "none"),
    "a missing text": (
        json.dumps(_record(segments=[{"speaker": "A"}])),
        "segments[0].text",
        "missing",
    ),
    "a NUL byte": (json.dumps(_record(segments=_segments(text="a\0b"))), "segments[0].text", "NUL"),
    "a lone surrogate": (
        json.dumps(_record(segments=_segments(text="a\ud800b"))),
        "segments[0].text",
        "surrogate",
    ),
    "5 MB": (
        json.dumps(_record(segments=_segments(text="a" * 5_000_000))),
        "segments[0].text",
        "5,000,000",
    ),
    "a negative time": (
        json.dumps(_record(segments=_segments(start=-3))),
        "segments[0].start",
        "negative",
    ),
    "an end before the start": (
        json.dumps(_record(segments=_segments(start=5, end=4))),
        "segments[0].end",
        "before",
    ),
    "a text as time": (
        json.dumps(_record(segments=_segments(start="3"))),
        "segments[0].start",
        "number",
    ),
    "NaN": (NAN, None, "NaN"),
    "a huge time": (
        json.dumps(_record(segments=_segments(start=10**400))),
        "segments[0].start",
        "possible",
    ),
    "a huge number": ('{"recording_id": ' + "1" * 10_000 + "}", None, "digits"),
    "a boolean id": (json.dumps(_record(recording_id=True)), "recording_id", "text"),
    "a fractional id": (json.dumps(_record(recording_id=1.5)), "recording_id", "text"),
    "an empty id": (json.dumps(_record(recording_id="")), "recording_id", "empty"),
    "an id with a line break": (
        json.dumps(_record(recording_id="a\nb")),
        "recording_id",
        "partition",
    ),
    "an id with dots": (json.dumps(_record(recording_id="a...b")), "recording_id", "partition"),
    "a wrong date": (json.dumps(_record(recorded_at="yesterday")), "recorded_at", "ISO"),
    "deep nesting": (DEEP, None, ""),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_input_is_named_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    line, field, reason = BAD_LINES[name]
    path = tmp_path / "calls.jsonl"
    path.write_text(f"{json.dumps(_record())}\n{line}\n{json.dumps(_record(recording_id='z'))}\n")
    first, rejection, last = read([path])
    assert isinstance(first, Recording)
    assert isinstance(last, Recording)
    assert isinstance(rejection, Rejection)
    assert rejection.place == f"{path}:2"
    assert rejection.field == field
    assert reason in rejection.reason
    assert "Hello" not in str(rejection)


def test_what_is_odd_is_noticed_and_imported(tmp_path: Path) -> None:
    segments = [
        {"speaker": "Ann", "start": 10, "text": "one"},
        {"speaker": None, "start": 5, "text": "two"},
        {"speaker": "Ann", "start": 4, "text": "three"},
    ]
    *notices, recording = read([_write(tmp_path / "calls.jsonl", _record(segments=segments))])
    assert isinstance(recording, Recording)
    assert [(type(n), getattr(n, "field", "")) for n in notices] == [
        (Notice, "segments[1].start"),
        (Notice, "segments[1].speaker"),
    ]


def test_a_recording_twice_in_one_import_is_rejected(tmp_path: Path) -> None:
    path = _write(tmp_path / "calls.jsonl", _record(), _record())
    _, rejection = read([path])
    assert isinstance(rejection, Rejection)
    assert f"{path}:1" in rejection.reason


def test_folders_are_walked_and_what_is_not_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# calls")
    (tmp_path / "film.mp4").write_bytes(bytes(range(256)) * 100)
    (tmp_path / ".hidden").mkdir()
    _write(tmp_path / ".hidden" / "x.jsonl", _record())
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "sub" / "b.jsonl", _record(recording_id="b"))
    (tmp_path / "sub" / "captions").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n")
    _write(tmp_path / "a.ndjson", _record(recording_id="a"))
    *found, notice = read([tmp_path])
    assert [getattr(r, "recording_id", r) for r in found] == ["a", "b", "captions"]
    assert isinstance(notice, Notice)
    assert "2 files were not read" in notice.reason
    assert "README.md, film.mp4" in notice.reason


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    unknown = tmp_path / "notes.txt"
    unknown.write_text("just some text")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    broken = tmp_path / "broken.jsonl.gz"
    whole = gzip.compress(json.dumps(_record()).encode() * 500)
    broken.write_bytes(whole[: len(whole) // 2])
    bare = tmp_path / "bare"
    bare.mkdir()
    paths = [unknown, empty, broken, bare, tmp_path / "missing.jsonl"]
    items = list(read(paths))
    assert all(isinstance(item, Rejection) for item in items)
    assert len(items) >= len(paths)
    for path in paths:
        assert any(str(path) in str(item) for item in items)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"type": "FeatureCollection", "features": []}, "has the keys type, features"),
        ({"Ann said <b>": 1}, "has no keys"),
        ("words", "is text, not an object"),
    ],
)
def test_an_unknown_document_is_told_by_what_it_looks_like(
    tmp_path: Path, document: Any, told: str
) -> None:
    path = tmp_path / "thing.json"
    path.write_text(json.dumps([document], indent=1))
    (rejection,) = read([path])
    assert isinstance(rejection, Rejection)
    assert told in rejection.reason
    assert "Ann" not in str(rejection)
    assert ("known are: Fathom's API" in rejection.reason) == isinstance(document, dict)


def _page(*ids: str) -> dict[str, Any]:
    return {"items": [{**MEETING, "recording_id": each} for each in ids]}


def test_pages_and_arrays_one_a_line_are_all_read(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "pages.json", _page("a", "b"), [_record(recording_id="c")], _page("d"), _record()
    )
    assert [r.recording_id for r in _recordings(path)] == ["a", "b", "c", "d", "100000001"]


@pytest.mark.parametrize("name", ["calls.json", "calls.jsonl", "calls"])
@pytest.mark.parametrize("first", ["{oops", "\n\n", '{"recording_id": 1', "\ufeff"])
def test_a_bad_first_line_does_not_cost_the_others(tmp_path: Path, name: str, first: str) -> None:
    path = tmp_path / name
    good = [json.dumps(_record(recording_id=each)) for each in "ab"]
    path.write_text("\n".join([first, *good]) if first != "\ufeff" else first + "\n".join(good))
    items = list(read([path]))
    assert [item.recording_id for item in items if isinstance(item, Recording)] == ["a", "b"]
    rejected = [item.place for item in items if isinstance(item, Rejection)]
    assert rejected == ([f"{path}:1"] if first.startswith("{") else [])


@pytest.mark.parametrize(
    "layout",
    [
        lambda items: json.dumps(items, indent=2),
        lambda items: "[\n" + ",\n".join(map(json.dumps, items)) + "\n]\n",
        lambda items: "[" + "\n,".join(map(json.dumps, items)) + "]",
        lambda items: '{"items": [\n' + ", \n".join(map(json.dumps, items)) + "\n]}",
    ],
    ids=["indented", "an element a line", "commas in front", "a page"],
)
@pytest.mark.parametrize("name", ["calls.json", "calls"])
def test_one_document_over_several_lines(tmp_path: Path, name: str, layout: Any) -> None:
    path = tmp_path / name
    path.write_text(layout([_record(recording_id=each) for each in "abc"]))
    assert [r.recording_id for r in _recordings(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["calls.jsonl", "calls.json"])
def test_a_line_beyond_the_bound_is_rejected_and_lines_are_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reading, "MOST_LINE_BYTES", 500)
    long = _record(title="x" * 3_000_000)
    records = [long, _record(recording_id="a"), long, _record(recording_id="b")]
    items = list(read([_write(tmp_path / name, *records)]))
    assert [getattr(item, "place", None) for item in items] == [
        f"{tmp_path / name}:1",
        None,
        f"{tmp_path / name}:3",
        None,
    ]


def test_a_document_beyond_the_bound_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_LINE_BYTES", 500)
    path = tmp_path / "calls.json"
    path.write_text(json.dumps([_record(title="x" * 100)] * 9, indent=1))
    (rejection,) = read([path])
    assert isinstance(rejection, Rejection)
    assert "JSON lines" in rejection.reason


def test_bad_names_of_invitees_and_speakers_do_not_reach_the_database(tmp_path: Path) -> None:
    invitee = {"email": "bo@example.com", "name": "B\0o"}
    long = {"display_name": "A" * 256}
    meetings = [
        {**MEETING, "recording_id": 1, "calendar_invitees": [invitee]},
        {**MEETING, "recording_id": 2, "transcript": [{"speaker": long, "text": "hi"}]},
        {
            **MEETING,
            "recording_id": 3,
            "transcript": [{"speaker": {"display_name": " A\n B "}, "text": "hi"}],
        },
    ]
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"items": meetings}))
    first_notice, first, second_notice, second, third = read([path])
    assert [getattr(item, "field", None) for item in (first_notice, second_notice)] == [
        "calendar_invitees[0].name",
        "transcript[0].speaker.display_name",
    ]
    assert isinstance(first, Recording)
    assert isinstance(second, Recording)
    assert isinstance(third, Recording)
    assert (first.invitees, second.segments[0].speaker) == ((), None)
    assert third.segments[0].speaker == "A B"


def test_a_folder_that_may_not_be_listed_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # nobody may not go through pytest's own folders
        folder, closed = Path(name), Path(name, "closed")
        folder.chmod(0o755)
        _write(folder / "a.jsonl", _record())
        closed.mkdir(mode=0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may list anything
        try:
            recording, rejection = read([folder])
        finally:
            os.seteuid(user)
    assert isinstance(recording, Recording)
    assert isinstance(rejection, Rejection)
    assert rejection.place == str(closed)


def test_pipes_in_a_folder_do_not_hang_and_broken_links_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("nowhere")
    _write(tmp_path / "c.jsonl", _record())
    rejection, recording = read([tmp_path])
    assert isinstance(rejection, Rejection)
    assert rejection.place == str(tmp_path / "b.jsonl")
    assert isinstance(recording, Recording)


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.txt"))
    path.write_text("no transcript")
    for rejection in read([path, Path("a\0b.jsonl"), Path("x" * 5000)]):
        assert isinstance(rejection, Rejection)
        assert str(rejection).encode()
        assert "\n" not in str(rejection)


def test_a_file_named_twice_is_rejected_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "call.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nAnn: hi\n")
    _, rejection = read([path, path])
    assert isinstance(rejection, Rejection)


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_NAMES = _TEXTS.map(lambda name: " ".join(name.split())).filter(bool)
_TIMES = st.none() | st.floats(0, 86_400)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.none() | _NAMES, _TEXTS, _TIMES), min_size=1),
    st.integers() | st.from_regex(r"[\w-]{1,40}", fullmatch=True),
    st.booleans(),
)
def test_what_is_written_as_json_lines_is_read_back(
    tmp_path: Path, spoken: list[Any], recording_id: int | str, escaped: bool
) -> None:
    spoken = [("Ann", "something", 0.0), *spoken]
    segments = [{"speaker": name, "text": text, "start": start} for name, text, start in spoken]
    record = _record(recording_id=recording_id, segments=segments)
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=escaped) + "\n", encoding="utf-8")
    recording = list(read([path]))[-1]
    assert isinstance(recording, Recording)
    assert recording.recording_id == str(recording_id)
    assert recording.segments == [
        Segment(position, name, text, start) for position, (name, text, start) in enumerate(spoken)
    ]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(_record()).encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    (recording,) = read(["-"])
    assert isinstance(recording, Recording)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([b"", b"{", b"[", b"WEBVTT\n\n", b"1\n00:00:01,000 --> 00:00:02,000\n"]),
    st.binary(max_size=300),
    st.sampled_from(["x.jsonl", "x.json", "x.vtt", "x.srt", "x.jsonl.gz"]),
)
def test_no_bytes_make_the_reader_fail(
    tmp_path: Path, start: bytes, rest: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + rest)
    for item in read([path]):
        assert isinstance(item, Recording | Rejection)


def test_what_the_generator_writes_is_read_back(tmp_path: Path) -> None:
    made = list(generate(5, 1, seed=3))
    path = tmp_path / "made.jsonl"
    with path.open("w") as file:
        write_jsonl(made, file)
    for before, after in zip(made, _recordings(path), strict=True):
        assert after.recording_id == before.recording_id
        assert [s.text for s in after.segments] == [s.text for s in before.segments]


def test_the_samples_are_read_without_a_notice() -> None:
    assert len(_recordings(shipped())) == 12


@needing("the shared cases and transcripts")
def test_the_real_transcripts_are_all_read() -> None:
    recordings = segments = 0
    for item in read([SHARED]):
        assert isinstance(item, Recording | Notice)
        if isinstance(item, Recording):
            recordings += 1
            segments += len(item.segments)
    assert (recordings, segments) == (399, 177_187)
