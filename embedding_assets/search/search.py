"""Finds what was said: by words and meaning together, by either alone, and narrowed by filters."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders import Embedder
from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets.engine.model import Turn
from embedding_assets.engine.vectors import require_live
from embedding_assets.search.access import reading
from embedding_assets.search.links import link_at
from embedding_assets.search.statements import sql
from embedding_assets.search.turns import turns_of

Vector = NDArray[np.float32]

EMBEDDING_SECONDS = 2.0
PER_RECORDING = 3
EXCERPT = 240
REMEMBERED = 256  # vectors of recent questions, for the life of the process
MARK, UNMARK = "\ue000", "\ue001"


class Mode(StrEnum):
    """What decides which chunks are found."""

    hybrid = "hybrid"
    semantic = "semantic"
    keyword = "keyword"


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is narrowed to; an empty field narrows nothing.

    Names of speakers count in any case, whole or one word of them. People are e-mail addresses:
    whoever recorded the call, was invited or spoke, by any of their addresses. `title` is words of
    the title, the last one perhaps not whole. Dates are those of the calls: from the first on,
    before the other; a call whose date is unknown is in no range of dates.
    """

    recordings: Sequence[str] = ()
    speakers: Sequence[str] = ()
    people: Sequence[str] = ()
    title: str = ""
    since: datetime | None = None
    until: datetime | None = None
    platforms: Sequence[str] = ()
    owners: Sequence[str] = ()
    not_recordings: Sequence[str] = ()
    not_speakers: Sequence[str] = ()
    not_people: Sequence[str] = ()
    not_title: str = ""
    not_platforms: Sequence[str] = ()
    not_owners: Sequence[str] = ()

    def as_json(self) -> str:
        """As the SQL function takes them."""
        excluded = {
            "recordings": list(self.not_recordings),
            "speakers": list(self.not_speakers),
            "people": list(self.not_people),
            "title": self.not_title,
            "platforms": list(self.not_platforms),
            "owners": list(self.not_owners),
        }
        wanted: dict[str, object] = {
            "recordings": list(self.recordings),
            "speakers": list(self.speakers),
            "people": list(self.people),
            "title": self.title,
            "from": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "platforms": list(self.platforms),
            "owners": list(self.owners),
            "exclude": {name: value for name, value in excluded.items() if value},
        }
        return json.dumps({name: value for name, value in wanted.items() if value})


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers, best first.

    `similarity` is the cosine of the vectors, `word_score` the weight of the words found, `score`
    both together, 0 to 1 over what was compared. `marks` are the matching words' places in `text`.
    """

    recording_id: str
    chunk_index: int
    title: str | None
    recorded_at: datetime | None
    url: str | None
    source_platform: str | None
    speakers: tuple[str, ...]
    start_seconds: float | None
    end_seconds: float | None
    text: str
    score: float
    similarity: float | None
    word_score: float | None
    matched_words: tuple[str, ...]
    marks: tuple[tuple[int, int], ...]
    turns: tuple[Turn, ...]
    before: tuple[str, ...] = ()  # texts of the chunks before it, on request
    after: tuple[str, ...] = ()

    @property
    def turn(self) -> Turn:
        """The turn that the excerpt begins with."""
        start = self._best_line()
        return next((t for t in reversed(self.turns) if t.offset <= start), self.turns[0])

    @property
    def said_at(self) -> float | None:
        """When it was said, in seconds from the call's start: the turn, or else the chunk."""
        seconds = self.turn.start_seconds
        return self.start_seconds if seconds is None else seconds

    @property
    def link(self) -> str | None:
        """Opens the recording where this was said."""
        return link_at(self.url, self.said_at)

    def excerpt(self, length: int = EXCERPT) -> tuple[str, tuple[tuple[int, int], ...]]:
        """About `length` characters from the turn on with most matching words, and their marks."""
        start, end = self._best_line(), len(self.text)
        if end - start > length:
            cut = self.text.rfind(" ", start, start + length)
            end = cut if cut > start else start + length
        shown = self.text[start:end].replace("\n", " ")
        before = "… " if start else ""
        marks = tuple(
            (a - start + len(before), b - start + len(before))
            for a, b in self.marks
            if start <= a and b <= end
        )
        return before + shown + (" …" if end < len(self.text) else ""), marks

    def _best_line(self) -> int:
        """Where the line with a matching word begins from which on most words match."""
        starts = {self.text.rfind("\n", 0, place) + 1 for place, _ in self.marks}

        def matching(start: int) -> int:
            near = (mark for mark in self.marks if start <= mark[0] < start + EXCERPT)
            return len({self.text[a:b].lower() for a, b in near})

        return max(starts, key=lambda start: (matching(start), -start), default=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, and by what they were found; `notice` says why not by what was asked for."""

    hits: tuple[Hit, ...]
    mode: Mode
    notice: str | None = None


def search(
    database: Database,
    embedder: Embedder,
    question: str,
    *,
    mode: Mode = Mode.hybrid,
    filters: Filters | None = None,
    limit: int = 10,
    per_recording: int = PER_RECORDING,
    context: int = 0,
    seconds: float | None = EMBEDDING_SECONDS,
    reader: str | None = None,
    database_seconds: float | None = None,
) -> Answer:
    """The chunks that answer `question` best.

    Args:
        database: the application's.
        embedder: the live model.
        question: words, "phrases" that must be there, -words that must not.
        mode: by both, by meaning or by words. Without the model, hybrid answers by words alone.
        filters: what to narrow the search to.
        limit: the most hits.
        per_recording: hits of one recording, as long as others fill the page.
        context: how many chunks before and after each hit to bring along.
        seconds: how long the question's embedding may take; None: as long as it takes.
        reader: who asks: an address or a user's id, whose calls alone are found where access is
            on; without it, the role of the connection decides.
        database_seconds: how long the database may take.

    Raises:
        InvalidInputError: the question is empty.
        ConfigurationError, TransientError: a semantic search without the model.
        StatementTimeoutError: the database took longer.
    """
    if not question.strip():
        raise InvalidInputError("the question is empty: say what to search for")
    vector, notice = None, None
    if mode is not Mode.keyword:
        try:
            with database.transaction() as connection:
                require_live(connection, embedder)
            vector = question_vector(embedder, question, seconds)
        except (ConfigurationError, TransientError) as error:
            if mode is Mode.semantic:
                raise
            notice = f"only words were searched: {error}"
    used = Mode.keyword if mode is Mode.hybrid and vector is None else mode
    with reading(database, reader, database_seconds) as connection:
        rows = sql.answer(
            connection,
            question=question.replace("\0", " "),
            query=vector,
            mode=used,
            filters=(filters or Filters()).as_json(),
            limit=limit,
            per_recording=per_recording,
        )
        hits = [_hit(row) for row in rows]
        if context:
            hits = [_with_context(connection, hit, context) for hit in hits]
    return Answer(tuple(hits), used, notice)


def nearest_chunks(connection: Connection, query: Vector, limit: int) -> list[Any]:
    """The published chunks nearest to a vector of the live model, with their similarity."""
    return list(sql.nearest_chunks(connection, query=query, limit=limit))


def question_vector(embedder: Embedder, question: str, seconds: float | None) -> Vector:
    """The question's vector, remembered for the life of the process.

    Raises:
        TransientError: it was not there in time, or the model is away.
        ConfigurationError: the model cannot be used.
    """
    key = (embedder.model, question)
    with _remembering:
        known = _remembered.get(key)
    if known is None:
        known = _within(seconds, lambda: embedder.embed([question]).vectors[0])
        with _remembering:
            _remembered[key] = known
            while len(_remembered) > REMEMBERED:
                _remembered.pop(next(iter(_remembered)))
    return known


_remembered: dict[tuple[str, str], Vector] = {}
_remembering = threading.Lock()  # a server asks from several threads


def _within(seconds: float | None, work: Callable[[], Vector]) -> Vector:
    """What `work` gives, or an error when that takes too long; it is not waited for then."""
    results: list[Vector | Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    # A daemon: a server that never answers must not keep the process from ending.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TransientError(
            f"the model did not answer within {seconds:g} s (SEARCH_EMBEDDING_SECONDS)"
        )
    result = results[0]
    if isinstance(result, Exception):
        if isinstance(result, EmbeddingAssetsError):
            raise result
        raise TransientError(f"the model failed: {type(result).__name__}") from result
    return result


def _hit(row: Any) -> Hit:
    text = row.chunk_text.replace(MARK, "").replace(UNMARK, "")
    return Hit(
        recording_id=row.recording_id,
        chunk_index=row.chunk_index,
        title=row.title,
        recorded_at=row.recorded_at,
        url=row.url,
        source_platform=row.source_platform,
        speakers=tuple(row.speakers),
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
        text=text,
        score=float(row.score),
        similarity=None if row.similarity is None else float(row.similarity),
        word_score=None if row.word_score is None else float(row.word_score),
        matched_words=tuple(row.matched_words),
        marks=_marks(row.marked),
        turns=turns_of(row),
    )


def _marks(marked: str) -> tuple[tuple[int, int], ...]:
    """The places that are marked, in the text without the marks."""
    length, marks = 0, []
    for number, piece in enumerate(marked.split(MARK)):
        word, _, rest = piece.partition(UNMARK) if number else ("", "", piece)
        if number:
            marks.append((length, length + len(word)))
        length += len(word) + len(rest)
    return tuple(marks)


def _with_context(connection: Connection, hit: Hit, context: int) -> Hit:
    rows = list(
        sql.neighbours(
            connection,
            recording_id=hit.recording_id,
            first=hit.chunk_index - context,
            last=hit.chunk_index + context,
        )
    )
    return replace(
        hit,
        before=tuple(row.chunk_text for row in rows if row.chunk_index < hit.chunk_index),
        after=tuple(row.chunk_text for row in rows if row.chunk_index > hit.chunk_index),
    )
