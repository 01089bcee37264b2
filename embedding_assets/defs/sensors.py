"""The sensors: new recordings, failed and dead runs, changes of health."""

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from embedding_assets.defs.jobs import (
    embed_recording,
    embed_recordings,
    send_alert,
    send_to_channel,
)
from embedding_assets.defs.launching import (
    RELAUNCH_OF_TAG,
    UNFINISHED,
    living_workers,
    relaunch_requests,
    silent_runs,
    worker_request,
)
from embedding_assets.defs.partitions import (
    RECORDINGS,
    PartitionChanges,
    partition_changes,
    recordings,
)
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import ERROR_KIND_TAG
from embedding_assets.defs.skipping import skipped_on_faults
from embedding_assets.defs.workers import Silence, dead, relaunch, workers_wanted
from embedding_assets.engine import queue, transcripts
from embedding_assets.engine.batch_work import is_worth_a_batch
from embedding_assets.engine.errors import ErrorKind
from embedding_assets.engine.heartbeats import BEATS_A_LEASE, take_for_dead
from embedding_assets.health.alerts import Report, Send, decide, from_cursor, to_cursor
from embedding_assets.health.channels import channels
from embedding_assets.health.system import system_health
from embedding_assets.settings import Settings

# Of each kind. The daemon asks for every key by itself, some 5 ms each, and no sensor ticks
# meanwhile; a worker adds those that are still missing at its end, all at once.
MOST_KEYS_A_TICK = 2_000
# Re-launched runs that may be unfinished at once; with more, the schedule's workers do the rest.
MOST_RELAUNCHED = 20
ALERT_TAG = "embedding_assets/alert"  # the attempt that a run is
# Sending takes half a minute at most, so a run that started ten minutes ago was killed. A run that
# is still queued is not counted as dead: a second one would send the alert twice.
DEAD_AFTER = timedelta(minutes=10)
ASSET_JOB_PREFIX = "__ASSET_JOB"  # what Dagster calls materializations from the UI and the CLI

# Dagster's own decorator for run status sensors passes this parameter to itself.
warnings.filterwarnings("ignore", "Parameter `owners` of initializer", dg.BetaWarning)


@dg.sensor(
    job=embed_recordings,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the partitions follow the recordings, and starts a worker when one is due.",
)
@skipped_on_faults
def discover_recordings(
    context: dg.SensorEvaluationContext, engine: EmbeddingEngine
) -> dg.SensorResult | dg.SkipReason:
    """Adds and deletes partitions, at most so many a tick, and requests a worker if one is due."""
    settings = Settings()
    with engine.database() as database, database.transaction(snapshot=True) as connection:
        recording_ids = transcripts.source_ids(connection, engine.partitions_since)
        work = queue.work_waiting(connection)
        goes_in_a_batch = is_worth_a_batch(connection, settings.batch_from_tokens)
    changes = partition_changes(
        recording_ids, context.instance.get_dynamic_partitions(RECORDINGS), work.held
    )
    # The sensor starts one worker; the schedule starts more.
    living = living_workers(settings, context.instance, work.holders)
    start = 0 if goes_in_a_batch else workers_wanted(work.due, len(living), most=1)
    if not any(changes) and not start:
        return dg.SkipReason("the partitions follow the recordings, and none waits for a worker")
    return dg.SensorResult(
        dynamic_partitions_requests=_requests(changes),
        run_requests=[worker_request(settings)] if start else [],
    )


def _requests(
    changes: PartitionChanges,
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    """The changes as requests of a size that the daemon grants at once; the rest waits a tick."""
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if changes.added:
        requests.append(recordings.build_add_request(changes.added[:MOST_KEYS_A_TICK]))
    if changes.deleted:
        requests.append(recordings.build_delete_request(changes.deleted[:MOST_KEYS_A_TICK]))
    return requests


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    request_jobs=[embed_recording, embed_recordings],
    description="Launches again, with small batches, what a failed run left undone; once.",
)
@skipped_on_faults
def relaunch_failed_recordings(
    context: dg.RunFailureSensorContext, engine: EmbeddingEngine
) -> list[dg.RunRequest] | dg.SkipReason:
    """Replaces a run that failed or was reported dead."""
    return _relaunch(context.dagster_run, context.instance, engine)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    request_jobs=[embed_recording, embed_recordings],
    description="Launches again, with small batches, what a cancelled run left undone; once.",
)
@skipped_on_faults
def relaunch_cancelled_recordings(
    context: dg.RunStatusSensorContext, engine: EmbeddingEngine
) -> list[dg.RunRequest] | dg.SkipReason:
    """Replaces a run that a person terminated."""
    return _relaunch(context.dagster_run, context.instance, engine)


def _relaunch(
    run: dg.DagsterRun, instance: dg.DagsterInstance, engine: EmbeddingEngine
) -> list[dg.RunRequest] | dg.SkipReason:
    skip = _not_to_relaunch(run, instance)
    if skip is not None:
        return dg.SkipReason(skip)
    with engine.database() as database, database.transaction(snapshot=True) as connection:
        left = queue.left_undone(connection, run.run_id, _partition_keys(run, instance))
        undone = [each for each in left if transcripts.is_there(connection, each)]
    if not undone:
        return dg.SkipReason("the run left nothing undone")
    # A request for a partition that is missing would fail every tick.
    plan = relaunch(undone, instance.get_existing_dynamic_partitions(RECORDINGS, undone))
    return relaunch_requests(run.run_id, plan.partitions, plan.worker)


def _not_to_relaunch(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str | None:
    if not run.job_name.startswith((ASSET_JOB_PREFIX, embed_recording.name)):
        return "the run embedded no recordings"
    if run.tags.get(ERROR_KIND_TAG) == ErrorKind.CONFIGURATION:
        return "a configuration error: a re-launch cannot succeed before a person mends it"
    if RELAUNCH_OF_TAG in run.tags:
        return "the run was a re-launch itself: the queue tries again after its back-off"
    unfinished = instance.get_runs(
        dg.RunsFilter(
            tags={"dagster/sensor_name": "relaunch_failed_recordings"}, statuses=UNFINISHED
        ),
        limit=MOST_RELAUNCHED,
    )
    if len(unfinished) >= MOST_RELAUNCHED:
        return "too many re-launches are unfinished: the queue tries again after its back-off"
    return None


def _partition_keys(run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[str] | None:
    """The recordings of a run of partitions; None for a worker, which takes whatever is due."""
    if run.tags.get("dagster/partition"):
        return [run.tags["dagster/partition"]]
    first = run.tags.get("dagster/asset_partition_range_start")
    last = run.tags.get("dagster/asset_partition_range_end")
    if first is None or last is None:
        return None
    keys = list(instance.get_dynamic_partitions(RECORDINGS))
    if first not in keys or last not in keys:
        return []
    return keys[keys.index(first) : keys.index(last) + 1]


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs as failed whose process died: no launcher notices that everywhere.",
)
@skipped_on_faults
def report_dead_runs(
    context: dg.SensorEvaluationContext, engine: EmbeddingEngine
) -> dg.SensorResult:
    """Reports runs that have not said for LEASE_SECONDS that they are alive.

    The only tick that writes: a run that did it would wait in the queue for a dead one's place.
    """
    lease = Settings().lease
    before = {
        run_id: Silence(*silence) for run_id, silence in json.loads(context.cursor or "{}").items()
    }
    silent = silent_runs(context.instance, engine, lease)
    found, left = dead(silent, before, datetime.now(UTC).timestamp(), 2 * lease / BEATS_A_LEASE)
    if found:
        with engine.database() as database:
            database.retrying(lambda connection: take_for_dead(connection, found))
    for run_id in found:
        run = context.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            context.instance.report_run_failed(
                run,
                "its process died, or its machine: for longer than LEASE_SECONDS it has neither"
                " said that it is alive nor renewed a lease",
            )
    return dg.SensorResult(
        skip_reason=f"{len(found)} runs reported, {len(left)} silent runs watched",
        cursor=json.dumps(left),
    )


@dg.sensor(
    job=send_alert,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the channels of ALERT_URLS when health gets worse, and when it has been"
    " better for a while; again until each channel took it.",
)
def alert_on_health_change(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Requests a run for each alert to send; needs no database but Dagster's."""
    settings = Settings()
    listed = channels(settings)
    previous = from_cursor(context.cursor)
    now = datetime.now(UTC)
    decision = decide(
        previous,
        system_health(settings),
        now,
        channels=listed.names,
        reports=_reports(context.instance, [] if previous is None else previous.attempts(), now),
        settle=timedelta(minutes=settings.alert_settle_minutes),
        name=settings.alert_name,
    )
    for problem in listed.problems:
        context.log.error(problem)
    cursor = to_cursor(decision.state)
    if decision.sends:
        return dg.SensorResult([_alert_request(send) for send in decision.sends], cursor=cursor)
    nobody = [] if listed.channels or listed.problems else ["ALERT_URLS is not set: nobody is told"]
    reason = "; ".join([*listed.problems, *nobody, decision.summary])
    return dg.SensorResult(skip_reason=reason, cursor=cursor)


def _reports(
    instance: dg.DagsterInstance, attempts: Sequence[str], now: datetime
) -> dict[str, Report]:
    """The state of each attempt's run; attempts without a run are left out."""
    if not attempts:
        return {}
    found: dict[str, Report] = {}
    for record in instance.get_run_records(dg.RunsFilter(tags={ALERT_TAG: list(attempts)})):
        attempt = record.dagster_run.tags[ALERT_TAG]
        # A person may have launched the run again: one delivery is enough.
        reports = [_report(record, now), found.get(attempt, Report.FAILED)]
        found[attempt] = min(reports, key=list(Report).index)
    return found


def _report(record: dg.RunRecord, now: datetime) -> Report:
    status = record.dagster_run.status
    if status is dg.DagsterRunStatus.SUCCESS:
        return Report.DELIVERED
    changed_at = record.update_timestamp.replace(tzinfo=UTC)
    is_dead = status is not dg.DagsterRunStatus.QUEUED and now - changed_at > DEAD_AFTER
    return Report.FAILED if record.dagster_run.is_finished or is_dead else Report.UNDERWAY


def _alert_request(send: Send) -> dg.RunRequest:
    """A run that sends one alert to one channel; its run key makes Dagster launch it only once."""
    config = {
        "channel": send.channel,
        "title": send.alert.title,
        "text": send.alert.text,
        "severity": send.alert.severity.name,
    }
    return dg.RunRequest(
        run_key=send.attempt,
        run_config={"ops": {send_to_channel.name: {"config": config}}},
        tags={ALERT_TAG: send.attempt},
    )
