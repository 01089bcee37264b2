"""Asks Dagster which runs are unfinished, and builds the requests for new ones."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from embedding_assets.defs.batches import embed_in_batches
from embedding_assets.defs.jobs import (
    count_words_job,
    embed_due_recordings,
    embed_recording,
    embed_recordings,
    maintain_vector_index,
    recover_dead_letters,
    sweep_vectors,
)
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.workers import Worker, living
from embedding_assets.engine import heartbeats
from embedding_assets.settings import Settings

RELAUNCH_OF_TAG = "embedding_assets/relaunch_of"
# Their runs say first of all that they are alive.
BEATING = {
    job.name
    for job in (
        embed_recordings,
        embed_recording,
        recover_dead_letters,
        embed_in_batches,
        sweep_vectors,
        count_words_job,
        maintain_vector_index,
    )
}
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def living_workers(
    settings: Settings, instance: dg.DagsterInstance, holders: Collection[str]
) -> list[str]:
    """Ids of the worker runs that can be working; `holders` have leases that have not run out."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=embed_recordings.name, statuses=UNFINISHED)
    )
    workers = [
        Worker(
            record.dagster_run.run_id,
            None if record.start_time is None else datetime.fromtimestamp(record.start_time, UTC),
        )
        for record in records
    ]
    return living(workers, holders, datetime.now(UTC), settings.lease)


def silent_runs(
    instance: dg.DagsterInstance, engine: EmbeddingEngine, lease: timedelta
) -> dict[str, str]:
    """Runs started longer ago than a lease that do not say that they are alive; when they last did.

    Runs that have never said it count only if their job does it first of all.
    """
    long_ago = datetime.now(UTC) - lease
    started = {
        record.dagster_run.run_id: record.dagster_run
        for record in instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        )
        if record.start_time and datetime.fromtimestamp(record.start_time, UTC) < long_ago
    }
    if not started:
        return {}
    with engine.database() as database, database.transaction(snapshot=True) as connection:
        silent = heartbeats.silent_runs(connection, list(started), lease)
    return {
        run_id: "" if beaten_at is None else beaten_at.isoformat()
        for run_id, beaten_at in silent.items()
        if beaten_at is not None or started[run_id].job_name in BEATING
    }


def worker_request(settings: Settings, *, run_key: str | None = None) -> dg.RunRequest:
    """A run of the worker for whatever is due."""
    config = {"time_budget_seconds": settings.worker_seconds}
    return dg.RunRequest(
        run_key=run_key,
        job_name=embed_recordings.name,
        run_config={"ops": {embed_due_recordings.name: {"config": config}}},
    )


def relaunch_requests(
    run_id: str, partitions: Sequence[str], worker: Sequence[str]
) -> list[dg.RunRequest]:
    """Small-batch runs that replace a failed one; their run keys make each launch once."""
    config = {"lane": "small_batch", "take_over": run_id}
    tags = {RELAUNCH_OF_TAG: run_id}
    requests = [
        dg.RunRequest(
            run_key=f"{run_id}:{recording_id}",
            job_name=embed_recording.name,
            partition_key=recording_id,
            run_config={"ops": {"transcript_chunks": {"config": config}}},
            tags=tags,
        )
        for recording_id in partitions
    ]
    if worker:
        config_of_these = {**config, "recording_ids": list(worker)}
        requests.append(
            dg.RunRequest(
                run_key=run_id,
                job_name=embed_recordings.name,
                run_config={"ops": {embed_due_recordings.name: {"config": config_of_these}}},
                tags=tags,
            )
        )
    return requests
