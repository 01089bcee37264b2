"""Whether the calls here are all that the recorder has, as far as each of its keys sees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from embedding_assets.engine.database import Connection
from embedding_assets.health.findings import Finding, Severity, count, iso
from embedding_assets.health.numbers import in_utc
from embedding_assets.health.statements import sql

UNREAD_WARNING = timedelta(hours=1)  # the schedule sync_fathom starts a run every 15 minutes
UNREAD_CRITICAL = timedelta(hours=24)
UNLISTED_WARNING = timedelta(hours=36)  # a listing begins every night
NAME = "recorder_sync"
MOST_LINES = 5  # keys whose numbers are in the message


@dataclass(frozen=True, slots=True)
class KeyNumbers:
    """What is known of one key; counts are of meetings."""

    key_name: str
    added_at: datetime
    walked_until: datetime | None
    walked_at: datetime | None
    read_at: datetime | None
    listed_at: datetime | None
    refused_since: datetime | None
    refusal: str | None
    there: int  # that the recorder has, as last seen
    here: int  # of these
    waiting: int  # of those that are here, for their transcripts
    unreadable: int
    missing: int  # that two listings did not see, and that are not believed to be gone
    gone: int


def measure_keys(connection: Connection) -> tuple[KeyNumbers, ...]:
    """Counts what each key sees and what of it is here, by the keys' names."""
    return tuple(KeyNumbers(**row._asdict()) for row in sql.fathom_keys(connection))


def recorder_sync(
    known: Sequence[KeyNumbers], key_names: Sequence[str], checked_at: datetime
) -> Finding:
    """Whether everything that the keys of the settings see is here.

    Args:
        known: the keys that were ever used.
        key_names: those of the settings.
        checked_at: the moment of the counts.
    """
    if not key_names:
        return Finding(
            NAME, Severity.HEALTHY, "no recorder is synchronised (FATHOM_API_KEYS is not set)"
        )
    by_name = {each.key_name: each for each in known}
    keys = {name: by_name.get(name) for name in key_names}
    problems = [
        f"key {name}: {problem}"
        for name, key in keys.items()
        for problem in _problems(key, checked_at)
    ]
    used = [key for key in keys.values() if key is not None]
    read = [key.read_at for key in used if key.read_at is not None and key.refusal is None]
    signs = [key.walked_at or key.added_at for key in used if key.refusal is None]
    is_dead = bool(used) and (not signs or checked_at - max(signs) >= UNREAD_CRITICAL)
    severity = Severity.WARNING if problems else Severity.HEALTHY
    lines = tuple(_line(name, key) for name, key in keys.items())
    return Finding(
        NAME,
        Severity.CRITICAL if is_dead else severity,
        "; ".join(problems or lines[:MOST_LINES]),
        "see the last runs of sync_fathom in Dagster; embedding-assets sync fathom reads at once"
        " and says what is wrong; what each case means: docs/runbook.md"
        if problems
        else None,
        {
            "there": sum(key.there for key in used),
            "here": sum(key.here for key in used),
            "waiting_for_transcripts": sum(key.waiting for key in used),
            "unreadable": sum(key.unreadable for key in used),
            "missing": sum(key.missing for key in used),
            "gone": sum(key.gone for key in used),
            "refused_keys": sum(key.refusal is not None for key in used),
            "read_at": iso(min(read, default=None)),
        },
        lines,
    )


def _problems(key: KeyNumbers | None, now: datetime) -> Iterator[str]:
    if key is None:
        yield "it was never used"
        return
    late = _lateness(key, now)
    if late is not None:
        yield late
    lacking = key.there - key.here - key.unreadable
    if lacking:
        yield f"{count(lacking, 'meeting')} not here"
    if key.unreadable:
        yield f"{count(key.unreadable, 'meeting')} could not be read"
    if key.missing:
        yield (
            f"{count(key.missing, 'meeting')} missing at the recorder: not asked for once more yet,"
            " or more than is believed without a person"
        )


def _lateness(key: KeyNumbers, now: datetime) -> str | None:
    """Why what the key sees may not be all here."""
    sign = key.walked_at or key.added_at
    is_unread = key.read_at is None
    cases = (
        (
            key.refused_since is not None,
            f"refused since {key.refused_since:%A}, {in_utc(key.refused_since)} ({key.refusal})"
            if key.refused_since
            else "",
        ),
        (is_unread and now - sign >= UNREAD_WARNING, f"its first reading stopped {in_utc(sign)}"),
        (is_unread, f"read for the first time, and has come to {in_utc(key.walked_until)}"),
        (
            now - (key.read_at or now) >= UNREAD_WARNING,
            f"not read since {in_utc(key.read_at)}",
        ),
        (key.listed_at is None, "never compared with the recorder's whole list"),
        (
            now - (key.listed_at or now) >= UNLISTED_WARNING,
            f"not compared with the recorder's whole list since {in_utc(key.listed_at)}",
        ),
    )
    return next((text for is_so, text in cases if is_so), None)


def _line(name: str, key: KeyNumbers | None) -> str:
    if key is None:
        return f"{name}: never used"
    waiting = f" ({key.waiting:,} of them wait for their transcripts)" if key.waiting else ""
    return (
        f"{name}: the recorder has {key.there:,}, here are {key.here:,}{waiting}; last complete"
        f" {in_utc(key.listed_at)}, last read {in_utc(key.read_at)}"
    )
