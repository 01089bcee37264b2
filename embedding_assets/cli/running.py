"""Runs the worker through Dagster in this process, without a daemon, and sums up what it did."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import dagster as dg

from embedding_assets.engine import queue
from embedding_assets.engine.background import meanwhile
from embedding_assets.engine.database import Database, sql
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError, ErrorKind
from embedding_assets.server.connections import application_url, open_database, require_storage
from embedding_assets.server.installation import dagster_environment
from embedding_assets.settings import Settings

Progress = Callable[[int, int], None]  # recordings done, recordings there were to do

POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did; the first seven fields are what `embedding-assets run --json` promises."""

    success: bool
    worker_id: str
    processed: int
    failed: int
    chunks_created: int
    duration_ms: int
    pending_remaining: int
    chunks_embedded: int
    tokens: int
    cost_usd: float | None
    error: str | None = None
    stopped: str | None = None  # why work that was due is left

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def run_worker(settings: Settings, *, lane: str, progress: Progress | None = None) -> Summary:
    """Discovers and embeds everything that is due, as a run of the job `embed_recordings`.

    Raises:
        ConfigurationError: nothing could succeed; no recording lost an attempt.
    """
    os.environ.update(dagster_environment(settings))
    from embedding_assets.definitions import defs  # noqa: PLC0415  (a second of imports)

    started = time.monotonic()
    with open_database(settings) as database, open_instance(settings) as instance:
        watching = (
            contextlib.nullcontext()
            if progress is None
            else meanwhile(partial(_watch, settings, progress))
        )
        with watching:
            job = defs.resolve_job_def("embed_recordings")
            result = _execute(instance, job, "embed_due_recordings", {"lane": lane})
        error = _failure(result)
        if error is not None and error[0] is ErrorKind.CONFIGURATION:
            raise ConfigurationError(error[1])
        summary = _summary(database, result, started, None if error is None else error[1])
        return replace(summary, stopped=_stopped(instance, result))


def run_batches(settings: Settings) -> str | None:
    """Puts everything that is due into batches, as a run of the job `embed_in_batches`.

    Gives why it stopped before that; None if it did not.

    Raises:
        ConfigurationError: the provider has no batches, or a setting is wrong.
        EmbeddingAssetsError: the run failed.
    """
    os.environ.update(dagster_environment(settings))
    from embedding_assets.definitions import defs  # noqa: PLC0415  (a second of imports)

    with open_database(settings) as database, open_instance(settings) as instance:
        queue.reconcile(database)
        job = defs.resolve_job_def("embed_in_batches")
        result = _execute(instance, job, "advance_batches", {"submit": True})
        error = _failure(result)
        if error is not None:
            kind, text = error
            is_configuration = kind is ErrorKind.CONFIGURATION
            raise (ConfigurationError if is_configuration else EmbeddingAssetsError)(text)
        return _stopped(instance, result)


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance; asked first whether its storage is there, as it tries long and loudly.

    Raises:
        TransientError: it is not, or takes no writes.
    """
    require_storage(settings)
    # The storage's connections tell of each try at length; what they find is told in the end.
    logging.basicConfig(level=logging.ERROR)
    with dg.DagsterInstance.get() as instance:
        yield instance


def _execute(
    instance: dg.DagsterInstance, job: dg.JobDefinition, op: str, config: dict[str, object]
) -> dg.ExecuteInProcessResult:
    """Runs a job in this process, without its log on the console."""
    return job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={
            "ops": {op: {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def _stopped(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str | None:
    """Why a run left work that was due."""
    from embedding_assets.defs.runs import STOPPED_TAG  # noqa: PLC0415

    run = instance.get_run_by_id(result.run_id)
    return None if run is None else run.tags.get(STOPPED_TAG)


def _summary(
    database: Database, result: dg.ExecuteInProcessResult, started: float, error: str | None
) -> Summary:
    # If the database restarted during the run, this connection is broken: retrying reconnects.
    totals = database.retrying(lambda connection: sql.run_totals(connection, run_id=result.run_id))
    counts = database.retrying(queue.queue_counts)
    return Summary(
        success=result.success,
        worker_id=result.run_id,
        processed=totals.processed,
        failed=totals.failed,
        chunks_created=totals.chunks,
        duration_ms=round((time.monotonic() - started) * 1000),
        pending_remaining=counts.unfinished,
        chunks_embedded=totals.embedded,
        tokens=totals.tokens,
        cost_usd=None if totals.cost_usd is None else float(totals.cost_usd),
        error=error,
    )


def _failure(result: dg.ExecuteInProcessResult) -> tuple[ErrorKind | None, str] | None:
    """The kind and the text of what the run died of."""
    if result.success:
        return None
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None:
            kind = data.user_failure_data.metadata.get("error_kind")
            text = data.user_failure_data.description or "the run failed"
            return (None if kind is None else ErrorKind(str(kind.value)), text)
        if data.error is not None:
            cause = data.error.cause or data.error  # Dagster wraps what the op raised
            if cause.cls_name == "DagsterExecutionInterruptedError":
                return (None, "interrupted: what was unfinished was given back")
            # Its first line: below it, an error of the storage shows statement and parameters.
            return (None, next(iter(cause.message.strip().splitlines()), "the run failed"))
    return (None, "the run failed; see its page in the Dagster UI")


def _watch(settings: Settings, progress: Progress, ended: threading.Event) -> None:
    """Reports how many recordings are done while the run goes on."""
    with Database(application_url(settings)) as database:
        to_do: int | None = None
        while not ended.wait(POLL_SECONDS):
            with contextlib.suppress(EmbeddingAssetsError), database.transaction() as connection:
                left = queue.queue_counts(connection).unfinished
                to_do = max(left, to_do or 0)
                progress(to_do - left, to_do)
        if to_do:
            progress(to_do, to_do)
