"""Reads a recording's transcript, whole and in one moment, from the recorder's tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import starmap

from embedding_assets.engine.chunking import ChunkSettings, chunk
from embedding_assets.engine.database import Connection, sql
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.engine.model import Chunk, Segment
from embedding_assets.engine.redaction.redactor import Redactor


@dataclass(frozen=True, slots=True)
class Call:
    """What the recorder says of a call; None where it does not say."""

    title: str | None
    recorded_at: datetime | None
    duration_seconds: float | None
    url: str | None  # as the recorder gives it: not checked
    source_platform: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """One recording as it was at one moment, in chunks; `version` tells it from later ones."""

    version: str
    call: Call
    cut_as: str  # the sizes of its chunks, CHUNK_TARGET_TOKENS/OVERLAP/MAX, and what was redacted
    chunks: tuple[Chunk, ...]


def read_transcript(
    connection: Connection, recording_id: str, settings: ChunkSettings
) -> Transcript | None:
    """The recording's transcript in chunks, or None when the call is gone.

    The connection must be in a snapshot transaction, so that the version is that of the segments.
    """
    call = sql.call(connection, recording_id=recording_id)
    if call is None:
        return None
    rows = sql.segments(connection, recording_id=recording_id)
    known, segments = Call(**call._asdict()), list(starmap(Segment, rows))
    if settings.redaction is not None:
        known, segments = _redacted(known, segments, Redactor(settings.redaction))
    return Transcript(
        version=current_version(connection, recording_id) or "",
        call=known,
        cut_as=settings.name,
        chunks=tuple(chunk(segments, settings)),
    )


def _redacted(
    call: Call, segments: Sequence[Segment], redactor: Redactor
) -> tuple[Call, list[Segment]]:
    """The call and its segments as they may be embedded and shown; the stored ones stay."""
    said = [
        each._replace(
            text=redactor.redact(each.text),
            # Recorders name whom they do not know by an address or a telephone number.
            speaker=None if each.speaker is None else redactor.redact(each.speaker),
        )
        for each in segments
    ]
    title = None if call.title is None else redactor.redact(call.title)
    return replace(call, title=title), said


def current_version(connection: Connection, recording_id: str) -> str | None:
    """The transcript's fingerprint as this transaction sees it; None when the call is gone."""
    version: str | None = sql.transcript_version(connection, recording_id=recording_id)
    return version


def says_something(connection: Connection, recording_id: str) -> bool:
    """Whether the recording's transcript has any text, so that it should have chunks."""
    return any(row.text.strip() for row in sql.segments(connection, recording_id=recording_id))


def require_sight(connection: Connection) -> None:
    """Stops a role from which row-level security hides calls: it would take them for deleted.

    Raises:
        ConfigurationError: a policy hides a published call, or may do so, or all transcripts.
    """
    hidden = sql.hidden_by_policy(connection)
    if hidden.calls:
        counts = sql.count_published_without_call(connection)
        if counts.unseen and not hidden.can_ask:
            raise ConfigurationError(
                f"row-level security applies to the role of DATABASE_URL on fathom_calls, where it"
                f" does not see {counts.unseen} of {counts.published} published calls: are they"
                " deleted, or hidden from it? Run deploy/roles.sql as the tables' owner, which lets"
                " it ask"
            )
        unseen = sql.count_hidden(connection) if counts.unseen else 0
        if unseen:
            raise ConfigurationError(
                f"row-level security on fathom_calls hides {unseen} of {counts.published}"
                " published calls from the role of DATABASE_URL, which would be taken for deleted:"
                " add a policy that lets it read all, or give it BYPASSRLS"
            )
    if hidden.transcripts and not sql.sees_transcripts(connection):
        raise ConfigurationError(
            "row-level security on fathom_transcripts hides every segment from the role of"
            " DATABASE_URL: add a policy that lets it read all, or give it BYPASSRLS"
        )


def is_certainly_gone(connection: Connection, recording_id: str) -> bool:
    """Whether a call that this role does not see is deleted, and not only hidden from it."""
    hidden = sql.hidden_by_policy(connection)
    if not hidden.calls:
        return True
    return hidden.can_ask and sql.call_is_there(connection, recording_id=recording_id) is False


def source_ids(connection: Connection, since: datetime | None = None) -> set[str]:
    """Ids of all recordings there are, as text; with `since`, of calls from then on.

    A call without a date is left out with `since`.
    """
    if since is None:
        rows = sql.source_ids(connection)
    else:
        rows = sql.source_ids_since(connection, since=since)
    return {row.recording_id for row in rows}


def is_there(connection: Connection, recording_id: str) -> bool:
    """Whether the recorder has this call."""
    return sql.call(connection, recording_id=recording_id) is not None
