"""Deletes old runs of the jobs that check and clean up: Dagster keeps every run for ever.

Checks every ten minutes come to some three gigabytes a year. Runs that materialized recordings or
parts of the index are kept: without their events, Dagster would show those partitions as missing.
"""

from datetime import datetime

import dagster as dg

PRUNED_JOBS = (
    "check_health",
    "count_words",
    "snapshot_health",
    "sweep_vectors",
    "embed_in_batches",
    "send_alert",
    "prune_runs",
)
MOST_AT_ONCE = 2_000  # runs of each job
ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def prune_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Deletes finished runs of PRUNED_JOBS that were created before then, with their logs.

    The newest run of each job is kept, whatever its age: Dagster's pages show its results. Returns
    the number of runs deleted.
    """
    return sum(_prune(instance, job, before) for job in PRUNED_JOBS)


def _prune(instance: dg.DagsterInstance, job: str, before: datetime) -> int:
    newest = {run.run_id for run in instance.get_runs(dg.RunsFilter(job_name=job), limit=1)}
    old = dg.RunsFilter(job_name=job, statuses=ENDED, created_before=before)
    runs = instance.get_runs(old, limit=MOST_AT_ONCE, ascending=True)
    deleted = [run.run_id for run in runs if run.run_id not in newest]
    for run_id in deleted:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(deleted)
