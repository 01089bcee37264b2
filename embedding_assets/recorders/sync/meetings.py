"""One meeting of Fathom's API: which it is, and what becomes of it here."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Rejection
from embedding_assets.recorders.formats import fathom
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.reading import read_as
from embedding_assets.recorders.upsert import Upserted, upsert


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a meeting; one without a recording could not be read."""

    meeting_id: str
    recording_id: str | None
    unreadable: str | None
    has_changed: bool = False
    told: tuple[str, ...] = ()
    """What people are to know of it, without anything that was said."""


def meeting_id(meeting: Any) -> str:
    """Fathom's id; for a meeting that has none, one made of what does not change in it."""
    try:
        return checks.recording_id(checks.mapping(meeting, None).get("recording_id"))
    except checks.RefusedError:
        given = meeting if isinstance(meeting, dict) else {"meeting": meeting}
        told = [given.get(key) for key in ("recording_id", "url", "share_url", "created_at")]
        made = json.dumps(told if any(told) else meeting, sort_keys=True)
        return f"unreadable-{hashlib.sha256(made.encode()).hexdigest()[:16]}"


def created_at(meeting: Any) -> datetime | None:
    """When it was created, if that can be read."""
    try:
        return checks.moment(checks.mapping(meeting, None).get("created_at"), "created_at")
    except checks.RefusedError:
        return None


def take(database: Database, meeting: Any) -> Taken:
    """Stores a meeting in a transaction of its own; one that is no call is told and left out.

    Raises:
        EmbeddingAssetsError: the database does not take it, and would take nothing else.
    """
    id_ = meeting_id(meeting)
    place = f"meeting {id_}"
    remarks: list[str] = []
    for item in read_as(fathom.FORMAT, meeting, place):
        if isinstance(item, Recording):
            return _store(database, id_, item, remarks)
        remarks.append(str(item))
        if type(item) is Rejection:
            return _unreadable(id_, f"{item.field}: {item.reason}" if item.field else item.reason)
    raise AssertionError("unreachable: a meeting is a recording or a rejection")  # pragma: no cover


def _store(database: Database, id_: str, recording: Recording, remarks: list[str]) -> Taken:
    try:
        outcome = upsert(database, recording)
    except InvalidInputError as error:
        return _unreadable(id_, str(error))
    has_changed = outcome.upserted is Upserted.IMPORTED
    # What was odd in it is told when it comes or changes, and not at every look.
    told = tuple(remarks) if has_changed else ()
    told += tuple(
        f"meeting {id_}: {field}: {reason}" if field else f"meeting {id_}: {reason}"
        for field, reason in outcome.remarks
    )
    return Taken(id_, outcome.recording_id, None, has_changed, told)


def _unreadable(id_: str, reason: str) -> Taken:
    return Taken(id_, None, reason, told=(f"meeting {id_} could not be read: {reason}",))
