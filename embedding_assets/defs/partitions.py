"""The partitions: of `transcript_chunks` one a recording, of `vector_index` one a part.

Dagster reads all keys of an asset at once in many places, so with PARTITION_MONTHS only the calls
of the last months have a partition. The others are embedded and searched all the same: the queue
knows nothing of partitions.
"""

import calendar
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

RECORDINGS = "recordings"
PARTS = "vector_index_parts"
MOST_KEYS_A_REQUEST = 5_000  # that Dagster's storage takes in one statement

recordings = dg.DynamicPartitionsDefinition(name=RECORDINGS)
vector_index_parts = dg.DynamicPartitionsDefinition(name=PARTS)


def partitions_since(months: int | None, now: datetime) -> datetime | None:
    """From when on calls have a partition: the day (UTC) so many months ago; None: all have.

    A whole day, so that partitions go once a day and not at every tick.
    """
    if months is None:
        return None
    today = now.astimezone(UTC)
    year, month = divmod(today.year * 12 + today.month - 1 - months, 12)
    last_day = calendar.monthrange(year, month + 1)[1]
    return datetime(year, month + 1, min(today.day, last_day), tzinfo=UTC)


def has_partition(recorded_at: datetime | None, since: datetime | None) -> bool:
    """Whether a call of that date has one. Without a date it is none of the last months."""
    return since is None or (recorded_at is not None and recorded_at >= since)


class PartitionChanges(NamedTuple):
    """What makes Dagster's partitions agree with the recordings."""

    added: list[str]
    deleted: list[str]


def partition_changes(
    recording_ids: Collection[str], keys: Collection[str], held: Collection[str] = ()
) -> PartitionChanges:
    """Compares the recordings with the partition keys; keys that a run works on are kept."""
    known, there, busy = set(keys), set(recording_ids), set(held)
    return PartitionChanges(added=sorted(there - known), deleted=sorted(known - there - busy))


def add_partitions(instance: dg.DagsterInstance, recording_ids: Iterable[str]) -> int:
    """Registers the recordings that are not yet partitions; gives their number."""
    added = partition_changes(set(recording_ids), instance.get_dynamic_partitions(RECORDINGS)).added
    for start in range(0, len(added), MOST_KEYS_A_REQUEST):
        instance.add_dynamic_partitions(RECORDINGS, added[start : start + MOST_KEYS_A_REQUEST])
    return len(added)
