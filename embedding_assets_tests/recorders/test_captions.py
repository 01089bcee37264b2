from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import Notice, read
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats import captions
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording

FIRST = "00:01.000 --> 00:02.000"
SECOND = "00:03.000 --> 00:04.000"


def recording(text: str, name: str, kind: Literal["vtt", "srt", "sbv"]) -> Recording:
    return captions.recording(text, kind, Source(f"/{name}"), Notes(name))


def _segments(text: str) -> list[Segment]:
    return list(recording(text, "call.vtt", "vtt").segments)


def _said(text: str) -> list[tuple[str | None, str]]:
    return [(segment.speaker, segment.text) for segment in _segments(text)]


def test_an_empty_line_within_a_cue_loses_no_text() -> None:
    text = f"WEBVTT\n\n{FIRST}\n\nlate\n\nlater\n\nNOTE not said\n\nid\n{SECOND}\nlast\n"
    assert _said(text) == [(None, "late\nlater"), (None, "last")]


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:04,000\nyes\n",
        "00:00:01,000 --> 00:00:02,000\n\n00:00:03,000 --> 00:00:04,000\nyes\n",
        "1\n00:00:01,000 --> 00:00:02,000\n2\n00:00:03,000 --> 00:00:04,000\nyes",
        "\n\n1\n\n00:00:01,000 --> 00:00:02,000\n\n2\n\n00:00:03,000 --> 00:00:04,000\nyes",
    ],
    ids=["numbered", "without numbers", "without empty lines", "with more empty lines"],
)
def test_srt_as_it_is_found_with_an_empty_cue(text: str, tmp_path: Path) -> None:
    path = tmp_path / "call.srt"
    path.write_text(text)
    found = list(read([path]))[-1]
    assert isinstance(found, Recording)
    assert found.segments == [
        Segment(0, None, "", 1.0, 2.0),
        Segment(1, None, "yes", 3.0, 4.0),
    ]
    assert found.duration_seconds == 4.0


def test_a_number_that_was_said_is_not_taken_for_an_index() -> None:
    assert _said(f"WEBVTT\n\n{FIRST}\n42\n\n{SECOND}\n43\n") == [(None, "42"), (None, "43")]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("if a <b and c> d", "if a <b and c> d"),
        ("a < b", "a < b"),
        ("<i>so</i> <b.loud>it</b> <00:01.500>goes", "so it goes"),
        ('<font color="red">red</font>', "red"),
        ("R&copy &amp; &lt;i&gt; &#39;", "R&copy & <i> '"),
        ("{curly}", "{curly}"),
    ],
)
def test_only_markup_is_taken_from_the_text(written: str, read_as: str) -> None:
    assert _said(f"WEBVTT\n\n{FIRST}\n{written}\n") == [(None, read_as)]


def test_two_voices_in_one_cue_are_two_segments_of_the_same_time() -> None:
    text = f"WEBVTT\n\n{FIRST}\n<v.first Ann &amp; Co>hi</v>\n<v Bo>ho\n"
    assert _segments(text) == [
        Segment(0, "Ann & Co", "hi", 1.0, 2.0),
        Segment(1, "Bo", "ho", 1.0, 2.0),
    ]


def test_consecutive_cues_of_one_speaker_stay_apart() -> None:
    text = f"WEBVTT\n\n{FIRST}\nAnn: one\n\n{SECOND}\nAnn: two\n"
    assert _said(text) == [("Ann", "one"), ("Ann", "two")]


def test_a_sentence_with_a_colon_is_no_speaker() -> None:
    cues = ["So here is the thing: we pay", "and then", "we wait", "for them"]
    text = "WEBVTT\n\n" + "\n\n".join(f"{FIRST}\n{cue}" for cue in cues)
    assert _said(text) == [(None, cue) for cue in cues]


def test_a_name_that_comes_again_is_a_speaker_though_most_cues_have_none() -> None:
    cues = ["Ann: well", "as I said", "and so", "on", "and on", "Ann: yes"]
    text = "WEBVTT\n\n" + "\n\n".join(f"{FIRST}\n{cue}" for cue in cues)
    assert [s.speaker for s in _segments(text)] == ["Ann", None, None, None, None, "Ann"]


@pytest.mark.parametrize(
    ("cue", "field", "reason"),
    [
        ("00:05.000 --> 00:04.000\nx", "cue.end", "before"),
        ("-00:00:05.000 --> 00:04.000\nx", "cue.start", "time"),
        ("00:99:05.000 --> 01:00:04.000\nx", "cue.start", "time"),
        ("00:00:03.000 --> later\nx", "cue.start", "time"),
        ("9999999999:00:01.000 --> 9999999999:00:02.000\nx", "cue.start", "time"),
        (f"{SECOND}\na\0b", "cue.text", "NUL"),
        (f"{SECOND}\n{'x' * 5_000_000}", "cue.text", "5,000,000"),
        (f"{SECOND}\n<v {'A' * 300}>x", "cue.speaker", "255"),
    ],
    ids=[
        "backward",
        "negative",
        "99 minutes",
        "no time",
        "a million years",
        "NUL",
        "5 MB",
        "long name",
    ],
)
def test_a_bad_cue_is_named_by_its_line_and_loses_itself_alone(
    tmp_path: Path, cue: str, field: str | None, reason: str
) -> None:
    path = tmp_path / "call.vtt"
    path.write_text(f"WEBVTT\n\n{FIRST}\nsecret\n\n{cue}\n\n{SECOND}\nlast\n")
    *notices, found = read([path])
    notice = notices[0]
    assert isinstance(notice, Notice)
    assert (notice.place, notice.field) == (f"{path}:6", field)
    assert reason in notice.reason
    assert "secret" not in str(notice)
    assert isinstance(found, Recording)
    said = [segment.text for segment in found.segments]
    assert said[0] == "secret"
    assert said[-1] == "last"
    assert ("x" in said) == ("left out" not in notice.reason)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["<a", "<v ", "<c.", "<v" + " " * 50, "&#", "a:", "-->"])
def test_no_hostile_cue_keeps_the_reader_busy(tmp_path: Path, piece: str) -> None:
    path = tmp_path / "call.vtt"
    path.write_text(f"WEBVTT\n\n{FIRST}\n" + piece * (900_000 // len(piece)))
    assert len(list(read([path]))) in {1, 2, 3}


@pytest.mark.timeout(60)
def test_a_day_of_cues_is_read(tmp_path: Path) -> None:
    path = tmp_path / "day.srt"
    cue = "{n}\n{h:02}:{m:02}:{s:02},000 --> {h:02}:{m:02}:{s:02},900\nAnn: turn {n}\n\n"
    with path.open("w") as file:
        for n in range(40_000):
            file.write(cue.format(n=n + 1, h=n * 2 // 3600, m=n * 2 // 60 % 60, s=n * 2 % 60))
    (found,) = read([path])
    assert isinstance(found, Recording)
    assert len(found.segments) == 40_000
    assert found.segments[-1] == Segment(39_999, "Ann", "turn 40000", 79_998.0, 79_998.9)


def test_zooms_stamp_is_the_date_and_a_wrong_one_is_none() -> None:
    text = f"WEBVTT\n\n{FIRST}\nhi\n"
    name = "calls/GMT20240131-090500_Recording.transcript.vtt"
    assert recording(text, name, "vtt").recorded_at == datetime(2024, 1, 31, 9, 5, tzinfo=UTC)
    assert recording(text, "GMT20241331-090500_Recording.vtt", "vtt").recorded_at is None


_LINES = st.text(st.sampled_from("abcÄ字:,.!?' 0"), min_size=1, max_size=20).filter(
    lambda line: any(c.isalpha() for c in line)
)


@given(
    st.lists(st.lists(st.lists(_LINES, max_size=3), max_size=3), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_every_letter_of_every_cue_is_read(
    cues: list[list[list[str]]], ending: str, numbered: bool
) -> None:
    written = ["WEBVTT", ""]
    for number, blocks in enumerate(cues, 1):
        index = [str(number)] if numbered else []
        text = [line for block in blocks for line in (*block, "")]
        written += [*index, f"{FIRST}", *text, ""]
    segments = _segments(ending.join(written))
    assert len(segments) >= len(cues)  # a cue in which a second speaker begins is two
    given_letters = [c for cue in cues for block in cue for line in block for c in line]
    read_letters = [c for each in segments for c in (each.speaker or "") + each.text]
    assert list(filter(str.isalpha, read_letters)) == list(filter(str.isalpha, given_letters))
