import random
import re
import statistics
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_assets.engine.chunking import ChunkSettings, chunk
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.model import Chunk, Segment
from embedding_assets.engine.tokens import MAX_BYTES_PER_TOKEN, count
from embedding_assets.search.calls import said

DEFAULT = ChunkSettings(target=330, overlap=50, maximum=460)

WORDS = st.sampled_from(
    ["price", "import", "failed", "und", "naïve", "客户", "سعر", "🎧", "x" * 70]
)
SENTENCES = st.lists(WORDS, min_size=1, max_size=12).map(lambda words: " ".join(words) + ". ")
TEXTS = st.one_of(
    st.text(max_size=300).filter(lambda text: "\0" not in text),
    st.lists(SENTENCES, max_size=20).map("".join),
    st.text("abc \n\t\u00a0\u2003。！", max_size=200),
    st.sampled_from(["", " ", "字" * 500, "A" * 3000, "http://e.example/" + "q" * 900]),
).filter(lambda text: text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text))
SPEAKERS = st.sampled_from([None, "Ann", "Bo", "Привет", "N" * 500, "🎧 " * 60])


@st.composite
def transcripts(draw: st.DrawFn) -> list[Segment]:
    number = draw(st.integers(0, 30))
    clock = 0.0
    segments = []
    for position in range(number):
        start = draw(st.none() | st.just(clock))
        end = draw(st.none() | st.just(clock + 1.5)) if start is not None else None
        segments.append(Segment(position * 2, draw(SPEAKERS), draw(TEXTS), start, end))
        clock += draw(st.integers(0, 9))
    return segments


SIZES = st.sampled_from([ChunkSettings(16, 0, 16), ChunkSettings(40, 8, 60), DEFAULT])


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _subsequence_end(needle: str, hay: str, start: int) -> int:
    for character in needle:
        start = hay.index(character, start) + 1
    return start


@settings(max_examples=200, deadline=None)
@given(transcripts(), SIZES)
def test_no_character_is_lost_and_no_chunk_is_too_long(
    segments: list[Segment], sizes: ChunkSettings
) -> None:
    chunks = list(chunk(segments, sizes))
    assert [each.index for each in chunks] == list(range(len(chunks)))
    for each in chunks:
        assert each.text.strip()
        assert 0 < each.token_count <= sizes.maximum
        assert count(each.text) <= each.token_count
        assert len(each.text.encode()) <= MAX_BYTES_PER_TOKEN * sizes.maximum
    said = [segment for segment in segments if segment.text.strip()]
    for segment in said:
        holding = [
            each for each in chunks if each.first_position <= segment.position <= each.last_position
        ]
        together = "".join(_squeezed(each.text) for each in holding)
        _subsequence_end(_squeezed(segment.text), together, 0)


@settings(max_examples=100, deadline=None)
@given(transcripts(), SIZES.filter(lambda sizes: sizes.overlap == 0))
def test_without_overlap_the_chunks_are_the_turns_one_after_the_other(
    segments: list[Segment], sizes: ChunkSettings
) -> None:
    spoken = [segment._replace(speaker=None) for segment in segments]
    together = _squeezed("".join(each.text for each in chunk(spoken, sizes)))
    assert together == _squeezed("".join(segment.text for segment in segments))


@settings(max_examples=200, deadline=None)
@given(transcripts(), SIZES)
def test_times_and_speakers_are_those_of_the_segments(
    segments: list[Segment], sizes: ChunkSettings
) -> None:
    by_position = {segment.position: segment for segment in segments if segment.text.strip()}
    for each in chunk(segments, sizes):
        inside = [
            segment
            for position, segment in by_position.items()
            if each.first_position <= position <= each.last_position
        ]
        assert inside[0].position == each.first_position
        assert inside[-1].position == each.last_position
        assert each.speakers == tuple(dict.fromkeys(s.speaker for s in inside if s.speaker))
        starts = [s.start_seconds for s in inside if s.start_seconds is not None]
        ends = [s.end_seconds for s in inside if s.end_seconds is not None]
        assert each.start_seconds == min(starts, default=None)
        assert each.end_seconds == max(starts + ends, default=None)


@settings(max_examples=100, deadline=None)
@given(transcripts(), SIZES)
def test_order_is_kept(segments: list[Segment], sizes: ChunkSettings) -> None:
    chunks = list(chunk(segments, sizes))
    for before, after in pairwise(chunks):
        assert before.first_position <= after.first_position
        assert before.last_position <= after.last_position


def _call(turns: int) -> list[Segment]:
    random_ = random.Random(7)
    words = ["we", "ship", "the", "import", "on", "Monday", "price", "per", "truck", "is", "high"]
    segments = []
    for position in range(turns):
        sentences = [
            " ".join(random_.choices(words, k=random_.randint(3, 18))) + "."
            for _ in range(random_.randint(1, 6))
        ]
        speaker = ("Ann", "Bo", "Cy")[position % 3]
        segments.append(Segment(position, speaker, " ".join(sentences), position * 9.0))
    return segments


def _new(before: list[Chunk], after: list[Chunk]) -> int:
    known = {each.content_hash for each in before}
    return len({each.content_hash for each in after} - known)


def test_an_edit_changes_the_chunks_around_it_only() -> None:
    sizes = DEFAULT
    call = _call(1200)
    before = list(chunk(call, sizes))
    random_ = random.Random(11)
    edits, deletions = [], []
    for _ in range(150):
        position = random_.randrange(len(call))
        edited = list(call)
        more = call[position].text + " And one more thing."
        edited[position] = call[position]._replace(text=more)
        edits.append(_new(before, list(chunk(edited, sizes))))
        deletions.append(_new(before, list(chunk(call[:position] + call[position + 1 :], sizes))))
    assert len(before) > 100
    assert statistics.mean(edits) < 2.0
    assert statistics.mean(deletions) < 3.5
    assert max(edits + deletions) < 20


def test_chunks_are_of_the_wanted_size() -> None:
    sizes = DEFAULT
    chunks = list(chunk(_call(1200), sizes))
    assert 300 <= statistics.mean(each.token_count for each in chunks) <= 400


def test_a_chunk_repeats_the_end_of_the_one_before() -> None:
    chunks = list(chunk(_call(200), DEFAULT))
    repeated = 0
    for before, after in pairwise(chunks):
        start = after.text.split(": ", 1)[1].split(".")[0]
        repeated += start in before.text
    assert repeated > 0.8 * (len(chunks) - 1)


@pytest.mark.parametrize("sizes", [(200, 60, 254), (16, 20, 40)])
def test_sizes_that_do_not_fit_together_are_a_configuration_error(
    sizes: tuple[int, int, int],
) -> None:
    with pytest.raises(ConfigurationError, match="CHUNK_"):
        ChunkSettings(*sizes)


HOSTILE = ["." * 200_000, "a." * 100_000, "?!" * 100_000 + "x", " " * 200_000 + "x", '."' * 100_000]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:3])
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    chunks = list(chunk([Segment(0, "Ann", text)], DEFAULT))
    assert "".join(_squeezed(each.text) for each in chunks).count(text.strip()[0]) > 0


@settings(max_examples=100, deadline=None)
@given(transcripts(), SIZES)
def test_turns_and_what_is_repeated_put_the_transcript_together_again(
    segments: list[Segment], sizes: ChunkSettings
) -> None:
    chunks = list(chunk(segments, sizes))
    for each in chunks:
        assert [turn.offset for turn in each.turns] == sorted({t.offset for t in each.turns})
        assert each.turns[0].offset == 0
        assert {turn.position for turn in each.turns} <= {s.position for s in segments}
    rows = [
        SimpleNamespace(
            chunk_index=each.index,
            chunk_text=each.text,
            speakers=each.speakers,
            first_position=each.first_position,
            start_seconds=each.start_seconds,
            repeated=each.repeated,
            turn_offsets=[turn.offset for turn in each.turns],
            turn_positions=[turn.position for turn in each.turns],
            turn_seconds=[turn.start_seconds for turn in each.turns],
            turn_speakers=[
                each.speakers.index(t.speaker) + 1 if t.speaker else None for t in each.turns
            ],
        )
        for each in chunks
    ]
    together = said(rows, {})
    wanted = [s for s in segments if s.text.strip()]
    assert [(t.position, t.speaker, t.start_seconds, t.text) for t in together] == [
        (s.position, s.speaker, s.start_seconds, s.text) for s in wanted
    ]
    # A word that is marked wherever a chunk has it is marked once, where it was said.
    marks = {
        row.chunk_index: [m.span() for m in re.finditer(r"\bprice\b", row.chunk_text)]
        for row in rows
    }
    for turn in said(rows, marks):
        assert [turn.text[a:b] for a, b in turn.marks] == ["price"] * len(turn.marks)
        if "price" not in "".join(str(turn.speaker)):
            assert len(turn.marks) == len(re.findall(r"\bprice\b", turn.text))
