"""Takes a call out of Dagster: its partition, the runs of it, and events that name it."""

import json
from collections import Counter

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from embedding_assets.defs.partitions import RECORDINGS

PARTITION_TAG = "dagster/partition"


def forget_events(
    instance: dg.DagsterInstance, recording_id: str
) -> tuple[Counter[str], list[str]]:
    """Deletes what names this recording; gives how much, and what could not be reached.

    Dagster has no call that deletes the events of a partition, so they are deleted in its storage.
    Workers write ids at the start of what they log, which is how other events are found.
    """
    counts: Counter[str] = Counter()
    for run in instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: recording_id})):
        instance.compute_log_manager.delete_logs(prefix=[run.run_id])
        instance.delete_run(run.run_id)
        counts["dagster_runs"] += 1
    if instance.has_dynamic_partition(RECORDINGS, recording_id):
        instance.delete_dynamic_partition(RECORDINGS, recording_id)
        counts["dagster_partitions"] += 1
    counts["dagster_events"] += _delete_events(instance, recording_id)
    return counts, [
        "what Dagster's daemon and web server have logged to their own output",
        "the last event of the asset and old ticks in Dagster's storage, until the next ones",
    ]


def _delete_events(instance: dg.DagsterInstance, recording_id: str) -> int:
    storage = instance.event_log_storage
    inner = getattr(storage, "wrapped", storage)
    if not isinstance(inner, SqlEventLogStorage):
        return 0
    statement = sa.text(
        "DELETE FROM event_logs WHERE partition = :id OR position(:named IN event) > 0"
    )
    # The id as JSON has it, after a quote and before the colon that follows it in a log line.
    named = json.dumps(f"{recording_id}: ").removesuffix('"')
    with inner.index_connection() as connection:
        result = connection.execute(statement, {"id": recording_id, "named": named})
    return int(result.rowcount)
