"""Stores recordings in the recorders' tables: one transaction each, never less than before."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import EmbeddingAssetsError, InvalidInputError
from embedding_assets.engine.model import Segment
from embedding_assets.recorders.edits import Edit, Stored, carried_over
from embedding_assets.recorders.forgetting import without_forgotten
from embedding_assets.recorders.identity import Identity, content_hash, identify
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.people import name_people
from embedding_assets.recorders.replacing import is_better, why_less
from embedding_assets.recorders.statements import sql

Remark = tuple[str | None, str]  # about a field, if about one


class Upserted(StrEnum):
    """The outcome of storing a recording."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a recording, under which id, and what is to be told of it."""

    recording_id: str
    upserted: Upserted
    remarks: tuple[Remark, ...] = ()


def upsert(
    database: Database,
    recording: Recording,
    *,
    replace_more: bool = False,
    only_of: str | None = None,
) -> Outcome:
    """Updates the tables to what the recorder says, writing only what differs.

    A person's edits (`edited_text`, `is_deleted`) stay with their words. A transcript that tells
    less than the stored one does not replace it, unless `replace_more`. Change tracking queues the
    recording if anything that is embedded changed. Of the calls that are here already, only those
    are touched that the reader `only_of` may see, if one is given.

    Raises:
        InvalidInputError: the tables refuse this call, and may take others.
        EmbeddingAssetsError: the database takes nothing now.
    """
    try:
        return database.retrying(
            lambda connection: _upsert(connection, recording, replace_more, only_of)
        )
    except EmbeddingAssetsError as error:
        if type(error) is EmbeddingAssetsError:  # of no kind: a constraint of somebody's table, say
            raise InvalidInputError(str(error)) from None
        raise


def _upsert(
    connection: Connection, recording: Recording, replace_more: bool, only_of: str | None
) -> Outcome:
    sql.hold_id(connection, recording_id=recording.recording_id)
    recording = without_forgotten(connection, recording)
    digest = content_hash(recording.segments)
    identity = identify(connection, recording, digest)
    recording_id = identity.recording_id
    if recording_id != recording.recording_id:
        sql.hold_id(connection, recording_id=recording_id)
    is_here = sql.is_here(connection, recording_id=recording_id)
    if (
        only_of
        and is_here
        and not sql.may_change_call(connection, recording_id=recording_id, reader=only_of)
    ):
        raise InvalidInputError(f"{only_of} is no reader of the call that has this id")
    forgotten_at = sql.is_forgotten(
        connection,
        recording_id=recording_id,
        content_hash=digest if recording.segments else None,
    )
    if forgotten_at is not None:
        told = f"was forgotten on {forgotten_at:%Y-%m-%d}, and is not taken again"
        return Outcome(recording_id, Upserted.UNCHANGED, (("recording_id", told),))
    stored = _stored(sql.stored_segments(connection, recording_id=recording_id))
    kept = None if replace_more else _why_kept(identity, recording, stored)
    remarks: list[Remark] = []
    if kept is not None:
        remarks.append(("transcript", f"{kept}: the stored one was kept"))
    if kept is not None and identity.from_file not in {None, recording.file}:
        return Outcome(recording_id, Upserted.UNCHANGED, tuple(remarks))
    changed = _describe(connection, recording, recording_id, digest, is_kept=kept is not None)
    if kept is None and [each.segment for each in stored] != list(recording.segments):
        changed += _write_segments(connection, recording_id, recording.segments, remarks)
    if not identity.is_known:
        if recording_id != recording.recording_id:
            taken = f"{recording.recording_id} is another call's: this one is {recording_id}"
            remarks.append(("recording_id", taken))
        remarks += _doubles(connection, recording, recording_id, digest)
    elif identity.from_file not in {None, recording.file}:
        remarks.append(
            ("recording_id", f"is {recording_id}, read before from {identity.from_file}")
        )
    return Outcome(
        recording_id, Upserted.IMPORTED if changed else Upserted.UNCHANGED, tuple(remarks)
    )


def _stored(rows: Iterable[Any]) -> list[Stored]:
    return [
        Stored(
            Segment(
                row.position,
                row.speaker_name,
                row.text,
                row.start_seconds,
                row.end_seconds,
                row.speaker_email,
            ),
            row.edited_text,
            row.is_deleted,
        )
        for row in rows
    ]


def _why_kept(identity: Identity, recording: Recording, stored: Sequence[Stored]) -> str | None:
    """Why the stored transcript stays; None if the new one may replace it."""
    before = [each.segment for each in stored]
    less = why_less(before, recording.segments)
    if less is not None or not before:
        return less
    other = identity.from_file
    if other is None or other == recording.file or not Path(other).exists():
        return None
    if is_better(before, recording.segments):
        return None
    return f"is the call of {other}, whose transcript is as good"


def _describe(
    connection: Connection,
    recording: Recording,
    recording_id: str,
    digest: bytes,
    *,
    is_kept: bool,
) -> int:
    """Writes all but the segments; gives the number of rows that changed."""
    has_words = bool(recording.segments) and not is_kept
    changed: int = sql.upsert_call(
        connection,
        recording_id=recording_id,
        title=recording.title,
        recorded_at=recording.recorded_at,
        # That of a transcript which is not taken is its own.
        duration=None if is_kept else recording.duration_seconds,
        url=recording.url,
        recorded_by_name=recording.recorded_by_name,
        recorded_by_email=recording.recorded_by_email,
        source_platform=recording.source_platform,
    )
    if recording.recorded_by_email and sql.owners_are_text(connection):
        changed += sql.fill_owner(
            connection, recording_id=recording_id, owner=recording.recorded_by_email
        )
    changed += sql.describe_call(
        connection,
        recording_id=recording_id,
        team=recording.recorded_by_team,
        shared_with=list(recording.shared_with),
        language=recording.language,
        awaits_transcript=recording.awaits_transcript and not is_kept,
        recorded_at=recording.recorded_at,
        content_hash=digest if has_words else None,
        proposed_id=recording.recording_id if recording.file else None,
        file=recording.file,
        imported_by=recording.imported_by,
        tells_access=recording.tells_access,
    )
    return changed + name_people(connection, recording_id, recording, with_speakers=not is_kept)


def _write_segments(
    connection: Connection, recording_id: str, segments: Sequence[Segment], remarks: list[Remark]
) -> int:
    """Replaces the segments; what a person made of them goes along with the words."""
    before = _stored(sql.hold_segments(connection, recording_id=recording_id))
    edits, lost = carried_over(before, segments) if any(s.has_edit for s in before) else ({}, [])
    for each in lost:
        sql.keep_unmatched_edit(
            connection,
            recording_id=recording_id,
            position=each.segment.position,
            text=each.segment.text,
            edited_text=each.edited_text,
            is_deleted=each.is_deleted,
        )
    if lost:
        places = ", ".join(str(each.segment.position) for each in lost[:5])
        remarks.append(
            (
                "transcript",
                f"{len(lost)} edits were made on words that are not in it any more (positions"
                f" {places}): they are kept in the table unmatched_edits",
            )
        )
    none = Edit(None, is_deleted=False)
    made = [edits.get(each.position, none) for each in segments]
    positions = [each.position for each in segments]
    changed: int = sql.upsert_segments(
        connection,
        recording_id=recording_id,
        positions=positions,
        speakers=[each.speaker for each in segments],
        emails=[each.speaker_email for each in segments],
        starts=[each.start_seconds for each in segments],
        ends=[each.end_seconds for each in segments],
        texts=[each.text for each in segments],
        edits=[each.edited_text for each in made],
        deletions=[each.is_deleted for each in made],
    )
    deleted: int = sql.delete_later_segments(
        connection, recording_id=recording_id, positions=positions
    )
    return changed + deleted


def _doubles(
    connection: Connection, recording: Recording, recording_id: str, digest: bytes
) -> list[Remark]:
    """Other calls that this one may be."""
    if not recording.segments:
        return []
    rows = sql.likely_doubles(
        connection,
        recording_id=recording_id,
        content_hash=digest,
        recorded_at=recording.recorded_at,
        title=recording.title,
    )
    return [
        (
            None,
            f"may be the same call as {row.recording_id}: "
            + ("the words are the same" if row.has_same_words else "title and time are the same"),
        )
        for row in rows
    ]
