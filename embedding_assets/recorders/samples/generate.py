"""Any number of plausible recordings for scale tests, the same ones for the same seed.

Every recording has a random generator of its own, seeded by its id. So a recording does not depend
on how many others are asked for, and only one is in memory at a time.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from string import Formatter
from typing import Final, TextIO

from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.samples import vocabulary as words

PLATFORM: Final = "jsonl"
LONG_SECONDS: Final = 3 * 3600.0

_LONG_TURNS: Final = (2_000, 3_200)
_MEDIAN_TURNS: Final = 92
_TURNS_SIGMA: Final = 0.3  # of the log: one call in six is over 1.35 times the median
_FIRST_DAY: Final = datetime(2026, 9, 1, 8, tzinfo=UTC)
_DAYS: Final = 90
_CHARACTERS_A_SECOND: Final = 15.0
_LONGEST_GAP: Final = 2.5

Pools = Mapping[str, Sequence[str]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]  # str.capitalize() would make the rest small


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence of the vocabulary, taken apart once: a %-format and what goes into it."""

    format: str
    slots: tuple[tuple[str, bool], ...]  # pool, and whether the value must be a new one

    def render(self, draw: Random, pools: Pools) -> str:
        random = draw.random
        values: list[str] = []
        for pool_name, must_differ in self.slots:
            pool = pools[pool_name]
            value = pool[int(random() * len(pool))]
            while must_differ and (value in values or _capital(value) in values):
                value = pool[int(random() * len(pool))]
            values.append(value)
        return self.format % tuple(values)


_Bank = tuple[_Sentence, ...]


def _compile(template: str) -> _Sentence:
    text, slots = "", []
    for literal, name, _, _ in Formatter().parse(template):
        text += literal.replace("%", "%%")
        if name is None:
            continue
        pool = name.rstrip("23456789")
        starts = not text or text.endswith((". ", "? "))
        slots.append((pool.capitalize() if starts else pool, pool != name))
        text += "%s"
    return _Sentence(text, tuple(slots))


def _bank(templates: Sequence[str]) -> _Bank:
    return tuple(_compile(template) for template in templates)


_OPENINGS: Final = _bank(words.OPENINGS)
_TRANSITIONS: Final = _bank(words.TRANSITIONS)
_DECISIONS: Final = _bank(words.DECISIONS)
_CLOSINGS: Final = _bank(words.CLOSINGS)
_REACTIONS: Final = _bank(words.REACTIONS)
_QUESTIONS: Final = _bank(words.QUESTIONS)
_ACCOUNTS: Final = _bank(words.ACCOUNTS)
_FIGURES: Final = _bank(words.FIGURES)
_ANSWERS: Final = _bank(words.ANSWERS)
_PROPOSALS: Final = _bank(words.PROPOSALS)
_DOUBTS: Final = _bank(words.DOUBTS)

# What may follow what, as the banks a turn is made of. What comes twice is likelier.
_TURNS: Final[tuple[tuple[_Bank, ...], ...]] = (
    (_QUESTIONS,),
    (_ACCOUNTS, _QUESTIONS),
    (_ANSWERS, _ACCOUNTS),
    (_ANSWERS, _FIGURES, _ACCOUNTS),
    (_ACCOUNTS, _FIGURES),
    (_FIGURES, _ACCOUNTS, _PROPOSALS),
    (_PROPOSALS,),
    (_PROPOSALS, _QUESTIONS),
    (_DOUBTS,),
    (_DOUBTS, _FIGURES),
    (_DOUBTS, _PROPOSALS),
    (_REACTIONS,),
    (_REACTIONS,),
    (_REACTIONS, _QUESTIONS),
)


def _with_capitals(pools: Pools) -> dict[str, Sequence[str]]:
    """The pools, and each again under a capital letter for the start of a sentence."""
    capitals = {
        name.capitalize(): tuple(_capital(value) for value in values)
        for name, values in pools.items()
    }
    return {**pools, **capitals}


@cache
def _topic_pools() -> tuple[dict[str, Sequence[str]], ...]:
    return tuple(
        _with_capitals(
            {
                **words.DRAWN,
                "subject": (topic.subject,),
                "thing": topic.thing,
                "trouble": topic.trouble,
                "cause": topic.cause,
                "remedy": topic.remedy,
                "measure": topic.measure,
            }
        )
        for topic in words.TOPICS
    )


def generate(recordings: int, long: int, seed: int) -> Iterator[Recording]:
    """Make up recordings, one at a time, in constant memory.

    The first `long` are over three hours and 2,000 turns long, the others about 15,000 characters
    in 60 to 150 turns. The same number of the same seed is always the same recording, whatever
    else is asked for; ids of different seeds differ.

    Args:
        recordings: How many in all.
        long: How many of them are long ones.
        seed: Any integer.

    Raises:
        InvalidInputError: A number is negative, or more long ones than recordings are asked for.
    """
    if not 0 <= long <= recordings:
        raise InvalidInputError(
            f"{long} long recordings of {recordings} in all: ask for 0 up to as many as in all"
        )
    return _generate(recordings, long, seed)


def _generate(recordings: int, long: int, seed: int) -> Iterator[Recording]:
    for number in range(long):
        yield _recording(f"sample-{seed}-long-{number}", is_long=True)
    for number in range(recordings - long):
        yield _recording(f"sample-{seed}-{number}", is_long=False)


def _recording(recording_id: str, *, is_long: bool) -> Recording:
    # A text seed goes through SHA-512, so PYTHONHASHSEED has no part in it.
    draw = Random(recording_id)  # noqa: S311  (made-up talk, no secret)
    customer, other = (_company(draw) for _ in range(2))
    speakers = _people(draw, 3 + int(draw.random() * 3))
    cast = _with_capitals(
        {
            "customer": (customer,),
            "other": (other,),
            "speaker": tuple(speaker.split(" ")[0] for speaker in speakers),
        }
    )
    if is_long:
        turns, seconds = draw.randint(*_LONG_TURNS), LONG_SECONDS
    else:
        turns, seconds = round(_MEDIAN_TURNS * draw.lognormvariate(0, _TURNS_SIGMA)), 0.0
    segments, duration = _say(draw, speakers, _talk(draw, cast), turns, seconds)
    kind = "full-day workshop" if is_long else draw.choice(words.CALL_KINDS)
    starts = timedelta(days=draw.randrange(_DAYS), minutes=5 * draw.randrange(108))
    return Recording(
        recording_id=recording_id,
        title=f"{customer}: {kind}",
        segments=segments,
        source_platform=PLATFORM,
        recorded_at=_FIRST_DAY + starts,
        duration_seconds=duration,
        url=f"https://calls.example/{recording_id}",
        recorded_by_name=speakers[0],
        recorded_by_email=_email(speakers[0]),
    )


def _company(draw: Random) -> str:
    return f"{draw.choice(words.COMPANY_STEMS)} {draw.choice(words.COMPANY_KINDS)}"


def _people(draw: Random, count: int) -> list[str]:
    firsts = draw.sample(words.FIRST_NAMES, count)
    return [f"{first} {draw.choice(words.LAST_NAMES)}" for first in firsts]


def _email(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]+", ".", plain) + "@calls.example"


def _talk(draw: Random, cast: Pools) -> Iterator[str]:
    """Turns without end: topic after topic, each opened, turned over and decided."""
    random, opening = draw.random, _OPENINGS
    while True:
        topics = list(_topic_pools())
        draw.shuffle(topics)
        for topic in topics:
            pools = {**topic, **cast}
            yield opening[int(random() * len(opening))].render(draw, pools)
            opening = _TRANSITIONS
            for _ in range(7 + int(random() * 9)):
                banks = _TURNS[int(random() * len(_TURNS))]
                yield " ".join(
                    [bank[int(random() * len(bank))].render(draw, pools) for bank in banks]
                )
            yield _DECISIONS[int(random() * len(_DECISIONS))].render(draw, pools)
            if random() < 0.3:
                yield _CLOSINGS[int(random() * len(_CLOSINGS))].render(draw, pools)


def _say(
    draw: Random, speakers: Sequence[str], talk: Iterator[str], turns: int, seconds: float
) -> tuple[list[Segment], float]:
    """Give each turn a speaker and a time, until there are enough turns and seconds."""
    random, others = draw.random, len(speakers) - 1
    segments: list[Segment] = []
    speaker, now = 0, 0.0
    while len(segments) < turns or now <= seconds:
        text = next(talk)
        segments.append(Segment(len(segments), speakers[speaker], text, round(now, 1)))
        now += len(text) / _CHARACTERS_A_SECOND + random() * _LONGEST_GAP
        speaker = (speaker + 1 + int(random() * others)) % len(speakers)
    return segments, round(now, 1)


def write_jsonl(recordings: Iterable[Recording], file: TextIO) -> int:
    """Write recordings as the importer reads them, one JSON object a line, ASCII only.

    What the format has no place for is left out: the speakers' e-mail addresses, the ends of
    segments and the platform.

    Returns:
        How many were written.
    """
    count = 0
    for recording in recordings:
        # ASCII, because nobody promises the encoding of the pipe behind standard output.
        file.write(json.dumps(_as_json(recording)) + "\n")
        count += 1
    return count


def _as_json(recording: Recording) -> dict[str, object]:
    recorded_by = {
        "name": recording.recorded_by_name,
        "email": recording.recorded_by_email,
    }
    optional: dict[str, object | None] = {
        "url": recording.url,
        "duration": recording.duration_seconds,
        "recorded_by": recorded_by if any(recorded_by.values()) else None,
    }
    return {
        "recording_id": recording.recording_id,
        "title": recording.title,
        "recorded_at": recording.recorded_at.isoformat() if recording.recorded_at else None,
        **{name: value for name, value in optional.items() if value is not None},
        "segments": [
            {"speaker": segment.speaker, "start": segment.start_seconds, "text": segment.text}
            for segment in recording.segments
        ],
    }
