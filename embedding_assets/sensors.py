"""What watches the database. Ticks only read: partitions and runs are requested, never made."""

import dagster as dg

from embedding_assets.engine import queue, transcripts
from embedding_assets.jobs import embed_recordings
from embedding_assets.partitions import (
    MOST_KEYS_A_REQUEST,
    RECORDINGS,
    PartitionChanges,
    partition_changes,
    recordings,
)
from embedding_assets.resources import EmbeddingEngine

MOST_KEYS_A_TICK = 20_000
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job=embed_recordings,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the partitions follow the recordings, and starts a worker when one is due.",
)
def discover_recordings(
    context: dg.SensorEvaluationContext, engine: EmbeddingEngine
) -> dg.SensorResult | dg.SkipReason:
    """Compares recordings with partitions, a bounded number of changes a tick."""
    with engine.database() as database, database.transaction(snapshot=True) as connection:
        recording_ids = transcripts.source_ids(connection)
        work = queue.work_waiting(connection)
    changes = partition_changes(
        recording_ids, context.instance.get_dynamic_partitions(RECORDINGS), work.held
    )
    start_worker = work.is_due and not _worker_unfinished(context.instance)
    if not any(changes) and not start_worker:
        return dg.SkipReason("every recording is a partition, and none waits for a worker")
    return dg.SensorResult(
        dynamic_partitions_requests=_requests(changes),
        run_requests=[dg.RunRequest()] if start_worker else [],
    )


def _requests(
    changes: PartitionChanges,
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    """The changes in requests that Dagster's storage takes; what is over comes next tick."""
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    for start in range(0, min(len(changes.added), MOST_KEYS_A_TICK), MOST_KEYS_A_REQUEST):
        keys = changes.added[start : start + MOST_KEYS_A_REQUEST]
        requests.append(recordings.build_add_request(keys))
    if changes.deleted:
        requests.append(recordings.build_delete_request(changes.deleted[:MOST_KEYS_A_REQUEST]))
    return requests


def _worker_unfinished(instance: dg.DagsterInstance) -> bool:
    filters = dg.RunsFilter(job_name=embed_recordings.name, statuses=UNFINISHED)
    return instance.get_runs_count(filters) > 0
