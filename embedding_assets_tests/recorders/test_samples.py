"""The recordings that come with the package, and the generator of any number."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.samples import shipped
from embedding_assets.recorders.samples.generate import LONG_SECONDS, generate, write_jsonl

REQUIRED = {"recording_id", "title", "recorded_at", "segments"}
OPTIONAL = {"url", "duration", "recorded_by"}


@pytest.fixture(scope="module")
def written() -> list[dict[str, Any]]:
    with shipped().open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_dozen_recordings_are_shipped_in_the_documented_format(
    written: list[dict[str, Any]],
) -> None:
    assert len(written) == 12
    assert len({recording["recording_id"] for recording in written}) == 12
    for recording in written:
        assert REQUIRED <= recording.keys() <= REQUIRED | OPTIONAL
        assert len(str(recording["recording_id"])) == 9
        recorded_at = datetime.fromisoformat(recording["recorded_at"])
        assert datetime(2026, 9, 1, tzinfo=UTC) < recorded_at < datetime(2026, 12, 1, tzinfo=UTC)
        assert recording["recorded_by"].keys() == {"name", "email"}
        for segment in recording["segments"]:
            assert segment.keys() == {"speaker", "start", "text"}


def test_shipped_times_run_forward_and_end_before_the_recording_does(
    written: list[dict[str, Any]],
) -> None:
    for recording in written:
        starts = [segment["start"] for segment in recording["segments"]]
        assert starts[0] >= 0
        assert all(earlier < later for earlier, later in itertools.pairwise(starts))
        assert starts[-1] < recording["duration"]


def test_one_shipped_recording_is_over_three_hours_and_the_others_are_calls(
    written: list[dict[str, Any]],
) -> None:
    long, *others = sorted(written, key=lambda recording: -recording["segments"][-1]["start"])
    assert long["segments"][-1]["start"] > LONG_SECONDS
    assert len(long["segments"]) >= 900
    for recording in others:
        assert recording["segments"][-1]["start"] < 5_400
        assert len(recording["segments"]) >= 40


def test_every_shipped_turn_says_something_and_is_said_by_someone_known(
    written: list[dict[str, Any]],
) -> None:
    surnames: dict[str, str] = {}
    for recording in written:
        for segment in recording["segments"]:
            assert segment["text"] == segment["text"].strip() != ""
            assert not set(segment["text"]) & set("{}<>\n\t"), "a leftover of the writing"
            first, _, surname = segment["speaker"].partition(" ")
            assert surnames.setdefault(first, surname) == surname  # one spelling in all calls
        speakers = {segment["speaker"] for segment in recording["segments"]}
        assert recording["recorded_by"]["name"] in speakers
        assert len(speakers) >= 4


def test_no_stretch_of_a_shipped_recording_comes_twice(written: list[dict[str, Any]]) -> None:
    stretches: Counter[tuple[str, ...]] = Counter()
    for recording in written:
        texts = [segment["text"] for segment in recording["segments"]]
        stretches.update(zip(texts, texts[1:], texts[2:], strict=False))
    assert [stretch for stretch, times in stretches.items() if times > 1] == []


def test_hardly_any_long_sentence_of_the_shipped_recordings_comes_twice(
    written: list[dict[str, Any]],
) -> None:
    texts = Counter(segment["text"] for recording in written for segment in recording["segments"])
    long_texts = {text: times for text, times in texts.items() if len(text) > 60}
    assert len(long_texts) > 800
    assert sum(times > 1 for times in long_texts.values()) <= 0.02 * len(long_texts)


@pytest.mark.parametrize(
    "words",
    [
        ("Expected number", "pallet_qty"),
        ("own the SSO rollout",),
        ("ninety-six dollars",),
        ("seventy-nine", "Insight included"),
        ("shared cluster", "seventy-three percent"),
    ],
)
def test_what_the_demo_asks_about_is_said(
    written: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    texts = [segment["text"] for recording in written for segment in recording["segments"]]
    assert any(all(word in text for word in words) for text in texts)


def test_the_shipped_file_is_small(written: list[dict[str, Any]]) -> None:
    assert shipped().stat().st_size < 600_000


def test_a_recording_is_the_same_however_many_are_asked_for() -> None:
    assert list(generate(5, 0, 7)) == list(generate(12, 0, 7))[:5]
    assert list(generate(4, 1, 7)) == list(generate(6, 1, 7))[:4]
    # Long ones come first and push nothing out of its place among the ordinary ones.
    assert list(generate(6, 1, 7))[1:] == list(generate(5, 0, 7))


def _digest(recordings: int, long: int, seed: int) -> str:
    file = io.StringIO()
    write_jsonl(generate(recordings, long, seed), file)
    return hashlib.sha256(file.getvalue().encode()).hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_makes_the_same_recordings(hash_seed: str) -> None:
    program = (
        "import sys\n"
        "from embedding_assets.recorders.samples.generate import generate, write_jsonl\n"
        "write_jsonl(generate(20, 1, 3), sys.stdout)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "ascii"}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True
    ).stdout
    assert hashlib.sha256(output).hexdigest() == _digest(20, 1, 3)


def test_ids_of_different_seeds_differ() -> None:
    seeds = (-1, 0, 1, 11, 110)
    ids = [recording.recording_id for seed in seeds for recording in generate(30, 1, seed)]
    assert len(set(ids)) == len(ids)


def _text(recording: Recording) -> str:
    return "".join(f"{segment.speaker}: {segment.text}\n" for segment in recording.segments)


def test_ordinary_recordings_are_as_long_as_calls_are() -> None:
    recordings = list(generate(400, 0, 1))
    turns = sorted(len(recording.segments) for recording in recordings)
    characters = [len(_text(recording)) for recording in recordings]
    assert 12_000 < sum(characters) / len(characters) < 20_000
    assert sum(60 <= count <= 150 for count in turns) / len(turns) > 0.75
    assert 85 < turns[200] < 100
    assert turns[-1] > 1.8 * turns[200], "some are much longer"
    assert turns[0] >= 20


def test_long_recordings_are_over_three_hours_and_two_thousand_turns() -> None:
    for recording in generate(3, 3, 5):
        assert len(recording.segments) >= 2_000
        start, duration = recording.segments[-1].start_seconds, recording.duration_seconds
        assert start is not None
        assert duration is not None
        assert LONG_SECONDS < start < duration


def test_generated_recordings_are_whole() -> None:
    for recording in generate(100, 2, 8):
        assert recording.recorded_at is not None
        assert datetime(2026, 9, 1, tzinfo=UTC) < recording.recorded_at
        assert recording.recorded_at < datetime(2026, 12, 1, tzinfo=UTC)
        starts = [segment.start_seconds or 0.0 for segment in recording.segments]
        assert all(earlier < later for earlier, later in itertools.pairwise(starts))
        assert [segment.position for segment in recording.segments] == list(range(len(starts)))
        text = _text(recording)
        assert not set(text) & set("{}%"), "a slot that was not filled"
        neighbours = itertools.pairwise(segment.speaker for segment in recording.segments)
        assert all(one != other for one, other in neighbours)


def _runs(texts: Sequence[str], characters: int) -> Iterator[str]:
    """From each turn on, the fewest whole turns that have so many characters together."""
    for first in range(len(texts)):
        run = ""
        for text in itertools.islice(texts, first, None):
            run += text + "\n"
            if len(run) >= characters:
                yield run
                break


def test_no_two_chunks_of_a_thousand_recordings_are_alike() -> None:
    # A chunk of 1,500 characters, wherever it is cut, holds a run of whole turns of 300 or more:
    # no turn has 400, so at most 800 are lost at its ends and 700 hold the run. If no two runs are
    # alike, no two chunks are.
    seen: Counter[int] = Counter()
    for recording in generate(1_000, 2, 2):
        texts = [segment.text for segment in recording.segments]
        assert max(len(text) for text in texts) < 399
        seen.update(hash(run) for run in _runs(texts, 300))
    assert seen.total() > 90_000
    assert max(seen.values()) == 1


def test_memory_does_not_grow_with_the_number_of_recordings() -> None:
    recordings = generate(400, 0, 6)
    for _ in range(20):
        next(recordings)
    tracemalloc.start()
    try:
        for _ in recordings:
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # bytes; the 380 recordings together are some 20 MB


@pytest.mark.parametrize(("recordings", "long"), [(-1, 0), (3, -1), (2, 3)])
def test_impossible_numbers_are_refused_at_once(recordings: int, long: int) -> None:
    with pytest.raises(InvalidInputError, match=str(long)):
        generate(recordings, long, 0)


def test_none_are_none() -> None:
    assert list(generate(0, 0, 0)) == []


def test_what_is_unknown_is_left_out_of_the_line() -> None:
    file = io.StringIO()
    bare = Recording("7", "Ünïcode", [Segment(0, None, "hm…")], source_platform="jsonl")
    assert write_jsonl([bare], file) == 1
    assert file.getvalue().isascii()
    assert json.loads(file.getvalue()) == {
        "recording_id": "7",
        "title": "Ünïcode",
        "recorded_at": None,
        "segments": [{"speaker": None, "start": None, "text": "hm…"}],
    }


def test_a_written_line_holds_the_whole_recording() -> None:
    (recording,) = generate(1, 0, 4)
    file = io.StringIO()
    write_jsonl([recording], file)
    line = json.loads(file.getvalue())
    assert line.keys() == REQUIRED | OPTIONAL
    assert line["recording_id"] == recording.recording_id
    assert datetime.fromisoformat(line["recorded_at"]) == recording.recorded_at
    assert line["duration"] == recording.duration_seconds
    assert [(s["speaker"], s["start"], s["text"]) for s in line["segments"]] == [
        (s.speaker, s.start_seconds, s.text) for s in recording.segments
    ]
