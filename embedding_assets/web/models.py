"""What the JSON API takes and gives."""

import base64
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.search import calls
from embedding_assets.search import search as searching
from embedding_assets.web.service import MOST_CHARACTERS

MOST_VALUES = 50  # of one filter


def _moment(value: Any) -> Any:
    """A date is its first moment; a number is no date, though pydantic takes it for seconds."""
    if isinstance(value, int | float) or re.fullmatch(r"\s*[-+]?[0-9.]*\s*", str(value)):
        raise ValueError("write a date such as 2026-01-31")
    if isinstance(value, str) and len(value) == len("2026-01-31"):
        try:
            return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
        except ValueError:
            return value
    return value


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _storable(value: str) -> str:
    """Postgres holds no NUL, and no half of a surrogate pair."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("it holds a character that no text has")
    return value


Word = Annotated[str, Field(max_length=500), AfterValidator(_storable)]
Words = Annotated[list[Word], Field(max_length=MOST_VALUES)]
Moment = Annotated[
    datetime,
    BeforeValidator(_moment, json_schema_input_type=date | datetime),
    AfterValidator(_in_utc),
]
_CURSOR: TypeAdapter[tuple[Moment | None, Word]] = TypeAdapter(tuple[Moment | None, Word])
Position = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Strict(BaseModel):
    """Refuses what it does not know, so that a misspelt filter does not narrow nothing."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Narrowed(_Strict):
    """What calls are narrowed to."""

    speaker: Words = Field(default=[], description="A name, whole or one word; any of them.")
    person: Words = Field(default=[], description="E-mail addresses; any of them.")
    title: Word = Field(default="", description="Words of the title, the last perhaps in part.")
    since: Moment | None = Field(default=None, alias="from", description="From then on, UTC.")
    until: Moment | None = Field(default=None, description="Before then, UTC.")
    platform: Words = Field(default=[], description="The recorder, such as zoom; any of them.")
    owner: Words = Field(default=[], description="Ids of users; any of them.")
    recording: Words = Field(default=[], description="Ids of calls; any of them.")
    not_speaker: Words = []
    not_person: Words = []
    not_title: Word = ""
    not_platform: Words = []
    not_owner: Words = []
    not_recording: Words = []

    def filters(self) -> searching.Filters:
        """As search takes them."""
        return searching.Filters(
            speakers=self.speaker,
            people=self.person,
            title=self.title,
            since=self.since,
            until=self.until,
            platforms=self.platform,
            owners=self.owner,
            recordings=self.recording,
            not_speakers=self.not_speaker,
            not_people=self.not_person,
            not_title=self.not_title,
            not_platforms=self.not_platform,
            not_owners=self.not_owner,
            not_recordings=self.not_recording,
        )


class SearchQuery(Narrowed):
    """What is searched, and how."""

    q: str = Field(
        min_length=1, max_length=MOST_CHARACTERS, description='Words, "phrases", -not these.'
    )
    mode: Literal["hybrid", "semantic", "keyword"] = "hybrid"
    limit: int = Field(default=10, ge=1, le=100)
    per_recording: int = Field(
        default=3, ge=1, le=100, description="Hits of one call, while others fill the page."
    )
    context: int = Field(default=0, ge=0, le=5, description="Chunks before and after each hit.")


class PageQuery(Narrowed):
    """A page of calls."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=1000, description="next_cursor of a page.")


class TranscriptQuery(_Strict):
    """A part of a call; from and to are included."""

    first_position: Position | None = None
    last_position: Position | None = None
    from_seconds: Seconds | None = None
    until_seconds: Seconds | None = None
    limit: int = Field(default=500, ge=1, le=5000, description="Turns of speakers.")

    def window(self) -> calls.Window:
        """As the transcript takes it."""
        return calls.Window(**self.model_dump(exclude={"limit"}))


class Hit(BaseModel):
    """A place that answers, best first; `marks` are places in `text`, in characters."""

    recording_id: str
    chunk_index: int
    title: str | None
    recorded_at: datetime | None
    source_platform: str | None
    speakers: list[str]
    speaker: str | None = Field(description="Who says what matches best.")
    said_at: float | None = Field(description="When, in seconds from the call's start.")
    position: int = Field(description="Of that turn in the transcript.")
    start_seconds: float | None
    end_seconds: float | None
    link: str | None = Field(description="Opens the recording there.")
    score: float
    similarity: float | None
    word_score: float | None
    matched_words: list[str]
    text: str
    marks: list[tuple[int, int]]
    before: list[str]
    after: list[str]

    @classmethod
    def of(cls, hit: searching.Hit) -> Self:
        """As the search found it."""
        turn = hit.turn
        return cls(
            **{
                name: getattr(hit, name)
                for name in cls.model_fields
                if name not in {"speaker", "position"}
            },
            speaker=turn.speaker,
            position=turn.position,
        )


class SearchAnswer(BaseModel):
    """The hits; `notice` says why they were found by `mode` and not as was asked."""

    mode: str
    notice: str | None
    hits: list[Hit]


class Recording(BaseModel):
    """A call; null where its recorder does not say."""

    recording_id: str
    title: str | None
    recorded_at: datetime | None
    duration_seconds: float | None
    source_platform: str | None
    speakers: list[str]
    link: str | None

    @classmethod
    def of(cls, call: calls.Call) -> Self:
        """As it is published."""
        return cls(**{name: getattr(call, name) for name in cls.model_fields})


class RecordingsPage(BaseModel):
    """Calls, the newest first."""

    recordings: list[Recording]
    next_cursor: str | None


class Turn(BaseModel):
    """What one speaker said in one turn."""

    position: int
    speaker: str | None
    start_seconds: float | None
    text: str

    @classmethod
    def of(cls, said: calls.Said) -> Self:
        """As it is published."""
        return cls(**{name: getattr(said, name) for name in cls.model_fields})


class TranscriptPage(BaseModel):
    """A part of a call; it goes on at `next_position`."""

    recording_id: str
    turns: list[Turn]
    next_position: int | None


class Meeting(_Strict):
    """A call of a recorder that has no format here; `meeting` as in docs/recorders.md."""

    source: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="The recorder's name.")
    external_id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$", description="The recorder's id of the call."
    )
    meeting: dict[str, Any]


class Imported(BaseModel):
    """What became of a meeting."""

    recording_id: str | None
    outcome: Literal["imported", "unchanged"]
    notices: list[str]


class Received(BaseModel):
    """What became of a delivery."""

    receipt: str


class Status(BaseModel):
    """How the server is."""

    status: str


class Problem(BaseModel):
    """What went wrong: RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] = []


def next_cursor(found: Sequence[calls.Call], shown: int) -> str | None:
    """Where the next page begins, of calls of which the first were shown; None: nowhere."""
    if len(found) <= shown:
        return None
    call = found[shown - 1]
    at = None if call.recorded_at is None else call.recorded_at.isoformat()
    return base64.urlsafe_b64encode(json.dumps([at, call.recording_id]).encode()).decode()


def place_of(cursor: str | None) -> tuple[datetime | None, str] | None:
    """Date and id of the call before the page.

    Raises:
        InvalidInputError: it is no cursor of ours.
    """
    if not cursor:
        return None
    try:
        at, recording_id = _CURSOR.validate_json(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        raise InvalidInputError("cursor: this is none that a page gave as its next") from None
    return at, recording_id
