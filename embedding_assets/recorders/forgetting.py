"""Deletes what recorders said of calls and people, and keeps it from coming in again."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.statements import sql

INSTEAD = "[forgotten]"  # of a person's words and name


def calls_before(database: Database, before: datetime) -> list[str]:
    """The calls of before a moment."""
    return _ids(database, lambda c: sql.calls_before(c, before=before))


def calls_of(database: Database, emails: list[str]) -> list[str]:
    """The calls that these addresses recorded, were invited to or spoke in."""
    return _ids(database, lambda c: sql.calls_of_people(c, emails=emails))


def addresses_of(database: Database, email: str) -> list[str]:
    """All addresses of the person with this one."""
    rows = database.retrying(lambda c: list(sql.addresses_of(c, email=email)), snapshot=True)
    return [row.email for row in rows]


def _is_deletable(connection: Connection, recording_id: str) -> bool:
    """Whether the recorder's table has the call; stops before anything is deleted otherwise.

    Raises:
        ConfigurationError: the recorder's tables are somebody else's, and the call is in them.
    """
    is_here: bool = sql.call_is_here(connection, recording_id=recording_id)
    if is_here and not sql.may_delete_calls(connection):
        raise ConfigurationError(
            f"recording {recording_id} is in tables that this role may not delete from: have their"
            " owner delete it there, then forget it here"
        )
    return is_here


def delete_call(connection: Connection, recording_id: str, *, is_here: bool = True) -> Counter[str]:
    """Deletes a call and all that is known of it; gives how many rows, by table.

    Change tracking withdraws its chunks from search. With `is_here` false, the recorder's own
    tables, in which it is no more, are left alone.
    """
    counts: Counter[str] = Counter()
    if is_here:
        counts["fathom_transcripts"] = sql.delete_segments(connection, recording_id=recording_id)
    counts.update(sql.delete_details(connection, recording_id=recording_id)._asdict())
    if is_here:
        counts["fathom_calls"] = sql.delete_call(connection, recording_id=recording_id)
    return counts


def forget_call(connection: Connection, recording_id: str) -> Counter[str]:
    """Deletes a call and keeps it from coming in again; gives how many rows, by table.

    Raises:
        ConfigurationError: the recorder's tables are somebody else's, and the call is in them.
    """
    sql.hold_id(connection, recording_id=recording_id)
    is_here = _is_deletable(connection, recording_id)
    sql.take_no_more(connection, recording_id=recording_id)
    counts = delete_call(connection, recording_id, is_here=is_here)
    counts["people"] = sql.forget_orphaned_people(connection)
    return counts


def forget_words(connection: Connection, recording_id: str, emails: list[str]) -> Counter[str]:
    """Replaces what these people said in a call, and their names; gives how many rows.

    Raises:
        ConfigurationError: the recorder's tables are somebody else's.
    """
    _is_deletable(connection, recording_id)
    parameters = {"recording_id": recording_id, "emails": emails}
    named = list(sql.names_in_call(connection, **parameters))
    if sql.owners_are_text(connection):
        sql.forget_owner(connection, **parameters)
    return Counter(
        {
            "fathom_transcripts": sql.forget_words(
                connection, names=[row.name for row in named], instead=INSTEAD, **parameters
            ),
            "fathom_calls": sql.forget_who_recorded(connection, **parameters),
            "call_people": sql.forget_in_call(connection, **parameters),
            "unmatched_edits": sql.forget_edits(connection, recording_id=recording_id),
        }
    )


def take_no_more_of(connection: Connection, emails: list[str]) -> None:
    """Keeps people's words from coming in again; first of all, so that none slips in."""
    for email in emails:
        sql.forget_address(connection, email_hash=email_hash(email))


def forget_people(connection: Connection, emails: list[str]) -> Counter[str]:
    """Deletes people, and takes them out of those whom calls were shared with."""
    return Counter(
        {
            "people": sql.forget_people(connection, emails=emails),
            "call_details": sql.forget_shares(connection, emails=emails),
        }
    )


def email_hash(email: str) -> bytes:
    """By which an address is known again without being kept."""
    return hashlib.sha256(email.lower().encode()).digest()


def without_forgotten(connection: Connection, recording: Recording) -> Recording:
    """The recording without the words and names of people who were forgotten."""
    emails = {
        email
        for email in (
            recording.recorded_by_email,
            *(each.email for each in recording.invitees),
            *(each.speaker_email for each in recording.segments),
            *(name.lower() for name in recording.shared_with if "@" in name),
        )
        if email
    }
    by_hash = {email_hash(each): each for each in emails}
    rows = sql.forgotten_hashes(connection, email_hashes=list(by_hash)) if by_hash else ()
    gone = {by_hash[bytes(row.email_hash)] for row in rows}
    if not gone:
        return recording
    names = _names(recording, gone)
    return replace(
        recording,
        segments=[
            each._replace(text=INSTEAD, speaker=INSTEAD, speaker_email=None)
            if each.speaker_email in gone or each.speaker in names
            else each
            for each in recording.segments
        ],
        invitees=tuple(each for each in recording.invitees if each.email not in gone),
        shared_with=tuple(n for n in recording.shared_with if n.lower() not in gone),
        recorded_by_email=None
        if recording.recorded_by_email in gone
        else recording.recorded_by_email,
        recorded_by_name=None
        if recording.recorded_by_email in gone
        else recording.recorded_by_name,
    )


def _names(recording: Recording, emails: set[str]) -> set[str | None]:
    named: Iterable[tuple[str | None, str | None]] = (
        (recording.recorded_by_email, recording.recorded_by_name),
        *((each.email, each.name) for each in recording.invitees),
    )
    return {name for email, name in named if email in emails and name}


def _ids(database: Database, read: Any) -> list[str]:
    rows = database.retrying(lambda connection: list(read(connection)), snapshot=True)
    return [row.recording_id for row in rows]
