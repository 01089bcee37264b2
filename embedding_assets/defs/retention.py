"""Deletes old runs that only looked at the system or tidied it: Dagster keeps every run for ever.

A look every ten minutes is some three gigabytes a year. Runs that materialized recordings or parts
of the index stay: with their events, Dagster would forget that those partitions are materialized.
"""

from datetime import datetime

import dagster as dg

PRUNED_JOBS = (
    "check_health",
    "count_words",
    "snapshot_health",
    "sweep_vectors",
    "send_alert",
    "prune_runs",
)
MOST_AT_ONCE = 2_000  # of each job
ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def prune_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Deletes the runs of PRUNED_JOBS that ended and were created before then, with their logs.

    The newest run of each job stays whatever its age: pages show what it found. Gives the number
    of runs deleted.
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
