"""What starts runs by the clock. Ticks only read: claims happen in the runs."""

from typing import Any

import dagster as dg

from embedding_assets.defs.batches import embed_in_batches
from embedding_assets.defs.jobs import (
    check_health,
    count_words_job,
    embed_recordings,
    forget_old_calls,
    maintain_vector_index,
    prune_runs,
    recover_dead_letters,
    snapshot_health,
    sweep_vectors,
    sync_fathom,
)
from embedding_assets.defs.launching import UNFINISHED, living_workers, worker_request
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.skipping import skipped_on_faults
from embedding_assets.defs.workers import workers_wanted
from embedding_assets.engine import queue, vector_index
from embedding_assets.engine.batch_work import has_a_next_step, is_worth_a_batch
from embedding_assets.settings import Settings


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, at the times that the settings name."""

    @dg.schedule(
        job=embed_recordings,
        cron_schedule=settings.embed_pending_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Starts workers while something is due and too few are alive.",
    )
    @skipped_on_faults
    def embed_pending(
        context: dg.ScheduleEvaluationContext, engine: EmbeddingEngine
    ) -> list[dg.RunRequest] | dg.SkipReason:
        """Requests as many workers as the due recordings need; reads only."""
        with engine.database() as database, database.transaction(snapshot=True) as connection:
            work = queue.work_waiting(connection)
            goes_in_a_batch = is_worth_a_batch(connection, settings.batch_from_tokens)
        if goes_in_a_batch:
            return dg.SkipReason("so much is due that embed_in_batches takes it")
        living = living_workers(settings, context.instance, work.holders)
        wanted = workers_wanted(work.due, len(living), settings.max_workers)
        if not wanted:
            return dg.SkipReason(f"{work.due} recordings due, {len(living)} workers alive")
        # Dagster refuses several requests of one tick that have no run keys.
        return [worker_request(settings, run_key=f"worker {n}") for n in range(1, wanted + 1)]

    @dg.schedule(
        name="recover_dead_letters",
        job=recover_dead_letters,
        cron_schedule=settings.recover_dead_letters_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Tries the five oldest dead letters again; each a few times, then a person"
        " decides.",
    )
    @skipped_on_faults
    def recover(
        engine: EmbeddingEngine,
    ) -> dg.RunRequest | dg.SkipReason:
        """Requests a run only if a dead letter may be recovered."""
        with engine.database() as database, database.transaction(snapshot=True) as connection:
            recoverable = queue.recoverable_dead_letters(connection)
        if not recoverable:
            return dg.SkipReason("no dead letter is due for recovery")
        return dg.RunRequest()

    sweep = dg.ScheduleDefinition(
        name="sweep_vectors",
        job=sweep_vectors,
        cron_schedule=settings.sweep_vectors_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes vectors that no chunk has referred to for a day.",
    )

    prune = dg.ScheduleDefinition(
        name="prune_runs",
        job=prune_runs,
        cron_schedule=settings.prune_runs_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes old runs that only looked at the system.",
    )

    check = _alone(
        check_health,
        settings.check_health_cron,
        "Looks at the system's health; never twice at once.",
    )
    count = _alone(
        count_words_job,
        settings.count_words_cron,
        "Counts the words of what was published, for search; never twice at once.",
    )
    snapshot = _alone(
        snapshot_health,
        settings.snapshot_health_cron,
        "Keeps what health is, for the trend; never twice at once.",
    )

    @dg.schedule(
        name="maintain_vector_index",
        job=maintain_vector_index,
        cron_schedule=settings.maintain_vector_index_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Seals and merges parts of the vector index when that pays; never twice at"
        " once.",
    )
    @skipped_on_faults
    def maintain(
        context: dg.ScheduleEvaluationContext, engine: EmbeddingEngine
    ) -> dg.RunRequest | dg.SkipReason:
        with engine.database() as database, database.transaction(snapshot=True) as connection:
            is_due = vector_index.waiting(connection, engine.index_policy())
        if not is_due:
            return dg.SkipReason("no part is worth building yet")
        return _one_at_a_time(context.instance, maintain_vector_index.name)

    @dg.schedule(
        name="embed_in_batches",
        job=embed_in_batches,
        cron_schedule=settings.embed_in_batches_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Sends and collects batches; sends new ones from BATCH_FROM_TOKENS on.",
    )
    @skipped_on_faults
    def in_batches(
        context: dg.ScheduleEvaluationContext, engine: EmbeddingEngine
    ) -> dg.RunRequest | dg.SkipReason:
        with engine.database() as database, database.transaction(snapshot=True) as connection:
            is_due = has_a_next_step(connection) or is_worth_a_batch(
                connection, settings.batch_from_tokens
            )
        if not is_due:
            return dg.SkipReason("no batch has a next step, and too little is due for a new one")
        return _one_at_a_time(context.instance, embed_in_batches.name)

    ours = [embed_pending, recover, in_batches, sweep, prune, check, count, snapshot, maintain]
    return [*ours, *_recorders(settings), *_retention(settings)]


def _recorders(settings: Settings) -> list[dg.ScheduleDefinition]:
    if settings.fathom_api_keys is None:
        return []
    told = "Reads what Fathom has; never twice at once."
    return [_alone(sync_fathom, settings.sync_fathom_cron, told)]


def _retention(settings: Settings) -> list[dg.ScheduleDefinition]:
    if settings.retention_days is None:
        return []
    told = "Forgets calls that are older than RETENTION_DAYS."
    return [_alone(forget_old_calls, settings.forget_old_calls_cron, told)]


def _alone(job: Any, cron: str, description: str) -> dg.ScheduleDefinition:
    """A schedule of the job's name whose runs do not pile up."""

    @dg.schedule(
        name=job.name,
        job=job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _one_at_a_time(context.instance, job.name)

    return tick


def _one_at_a_time(instance: dg.DagsterInstance, job: str) -> dg.RunRequest | dg.SkipReason:
    """Requests a run unless one of this job is queued or running."""
    unfinished = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=1)
    if unfinished:
        return dg.SkipReason(f"run {unfinished[0].run_id} is not finished")
    return dg.RunRequest()
