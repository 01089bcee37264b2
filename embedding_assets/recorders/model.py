"""What a recorder says of a call, whatever format it comes in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from embedding_assets.engine.model import Segment


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who was invited to a call, as the recorder names them."""

    email: str | None
    name: str | None = None
    is_external: bool | None = None  # None: the recorder does not say


@dataclass(frozen=True, slots=True)
class Recording:
    """A call with its whole transcript, or one that waits for it and has no segments yet.

    An id that was made of a file's name is only proposed: storing decides which call the file is.
    """

    recording_id: str
    title: str
    segments: Sequence[Segment]
    source_platform: str
    recorded_at: datetime | None = None
    duration_seconds: float | None = None
    url: str | None = None
    recorded_by_name: str | None = None
    recorded_by_email: str | None = None
    recorded_by_team: str | None = None
    shared_with: tuple[str, ...] = ()  # teams, or a word of the recorder's such as `all_teams`
    invitees: tuple[Person, ...] = ()
    language: str | None = None
    awaits_transcript: bool = False
    file: str | None = None  # the absolute path, where the id is made of it
    imported_by: str | None = None  # an address
    tells_access: bool = False  # nobody invited and no team are so, and not only unknown
