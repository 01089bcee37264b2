"""Whether calls that are older than they may become were forgotten."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from embedding_assets.engine.database import Connection
from embedding_assets.health.findings import Finding, Severity, count, iso
from embedding_assets.health.numbers import in_utc
from embedding_assets.health.statements import sql

LATE = timedelta(days=2)  # the schedule forget_old_calls starts a run every night
NAME = "retention"


@dataclass(frozen=True, slots=True)
class Due:
    """The calls that are older than they may become."""

    calls: int
    oldest: datetime | None


def calls_due(connection: Connection, retention_days: int | None) -> Due | None:
    """Counts them; None where calls may become as old as they like."""
    if retention_days is None:
        return None
    row = sql.calls_older_than(connection, days=retention_days)
    return Due(row.calls, row.oldest)


def retention(due: Due | None, retention_days: int | None, checked_at: datetime) -> Finding:
    """What is due to go, and whether it goes."""
    if due is None or retention_days is None:
        message = "calls may become as old as they like (RETENTION_DAYS is not set)"
        return Finding(NAME, Severity.HEALTHY, message)
    limit = checked_at - timedelta(days=retention_days)
    is_late = due.oldest is not None and due.oldest < limit - LATE
    message = f"no call is older than {retention_days} days"
    if due.calls:
        message = (
            f"{count(due.calls, 'call')} older than {retention_days} days, the oldest"
            f" {in_utc(due.oldest)}, to be forgotten by the next run of forget_old_calls"
        )
    return Finding(
        NAME,
        Severity.WARNING if is_late else Severity.HEALTHY,
        message,
        "see why the runs of forget_old_calls fail; embedding-assets forget --before DATE does it"
        " here and says why not"
        if is_late
        else None,
        {"due": due.calls, "oldest": iso(due.oldest)},
    )
