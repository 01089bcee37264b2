"""The partitions: of `transcript_chunks` one a recording, of `vector_index` one a part."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import dagster as dg

RECORDINGS = "recordings"
PARTS = "vector_index_parts"
MOST_KEYS_A_REQUEST = 5_000

recordings = dg.DynamicPartitionsDefinition(name=RECORDINGS)
vector_index_parts = dg.DynamicPartitionsDefinition(name=PARTS)


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


def key_batches(keys: Sequence[str]) -> Iterator[list[str]]:
    """The keys in batches that Dagster's storage takes at once."""
    for start in range(0, len(keys), MOST_KEYS_A_REQUEST):
        yield list(keys[start : start + MOST_KEYS_A_REQUEST])


def add_partitions(instance: dg.DagsterInstance, recording_ids: Iterable[str]) -> int:
    """Registers the recordings that are not yet partitions; gives their number."""
    added = partition_changes(set(recording_ids), instance.get_dynamic_partitions(RECORDINGS)).added
    for keys in key_batches(added):
        instance.add_dynamic_partitions(RECORDINGS, keys)
    return len(added)
