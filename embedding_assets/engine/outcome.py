"""How an attempt at a recording ended, as a run reports it."""

from dataclasses import dataclass
from enum import StrEnum

from embedding_assets.engine.errors import ErrorKind
from embedding_assets.engine.publication import AttemptFigures
from embedding_assets.engine.transcripts import Call


class Result(StrEnum):
    """How an attempt ended."""

    PUBLISHED = "published"
    FAILED = "failed"
    SOURCE_GONE = "source_gone"
    CLAIM_LOST = "claim_lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording in this run; `call` and `version` of what was published."""

    recording_id: str
    result: Result
    figures: AttemptFigures
    error_kind: ErrorKind | None = None
    error: str | None = None
    call: Call | None = None
    version: str | None = None
