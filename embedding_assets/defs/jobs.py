"""The jobs: embedding, recovery, cleaning up, the vector index, word counts, health, alerts."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
from pydantic import Field

from embedding_assets.defs import retention
from embedding_assets.defs.assets.embedding_health import embedding_health
from embedding_assets.defs.assets.transcript_chunks import transcript_chunks
from embedding_assets.defs.assets.vector_index import build_waiting_parts
from embedding_assets.defs.checks import health_checks, report_health
from embedding_assets.defs.event_batches import log_in_batches
from embedding_assets.defs.forgetting import forget_events
from embedding_assets.defs.partitions import add_partitions
from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import EmbedConfig, WorkerConfig, run_session
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.engine.in_flight import Lane
from embedding_assets.engine.outcome import Outcome
from embedding_assets.engine.session import Session
from embedding_assets.engine.sweeping import sweep
from embedding_assets.engine.transcripts import source_ids
from embedding_assets.forgetting import Request, forget, plan
from embedding_assets.health.channels import ChannelError, channels
from embedding_assets.health.findings import Severity
from embedding_assets.search.frequencies import count_words
from embedding_assets.server.connections import open_owner_database
from embedding_assets.settings import Settings
from embedding_assets.wiring import batch_file_deleter

# Run monitoring ends a run of a job without a heartbeat after so many seconds. Without it, the run
# of a killed process would stay "started", and its schedule, which starts one run at a time, would
# not start another. All others say that they are alive (report_dead_runs).
_MINUTES = {"dagster/max_runtime": "600"}
_AN_HOUR = {"dagster/max_runtime": "3600"}


@dg.op(
    description="Claims recordings that are due, embeds them, and claims again until none is.",
)
def embed_due_recordings(
    context: dg.OpExecutionContext, config: WorkerConfig, engine: EmbeddingEngine
) -> None:
    """Logs the same event for each recording as materializing its partition would."""

    def embed(session: Session) -> Iterator[Outcome]:
        if config.recording_ids:
            return session.these(config.recording_ids)
        budget = config.time_budget_seconds
        return session.due(None if budget is None else timedelta(seconds=budget))

    since = engine.partitions_since
    published: int | None = None  # unknown, if the run fails
    with engine.beating(context.run.run_id, context.instance):
        try:
            events = run_session(context, engine, config, embed, since=since)
            published = log_in_batches(context, events)
        finally:
            _add_partitions(context, engine, since)
            if published != 0:  # else there is no word to count, and no check is out of date
                _count_words(context, engine)
                report_health(context.instance)


def _add_partitions(
    context: dg.OpExecutionContext, engine: EmbeddingEngine, since: datetime | None
) -> None:
    """Registers what the sensor has not found yet; last, as all keys have to be read for it."""
    try:
        with engine.database() as database:
            recording_ids = database.retrying(lambda c: source_ids(c, since))
    except EmbeddingAssetsError as error:
        context.log.warning(f"partitions were not added: {error}")
        return
    add_partitions(context.instance, recording_ids)


def _count_words(context: dg.OpExecutionContext, engine: EmbeddingEngine) -> None:
    """Counts the words of what was published; an error is logged, and the schedule counts later."""
    try:
        with engine.database() as database:
            database.retries_seconds = 0
            counted = count_words(database)
    except EmbeddingAssetsError as error:
        context.log.warning(f"words were not counted: {error}")
        return
    again = ", all of them anew" if counted.recounted else ""
    context.log.info(f"the words of {counted.chunks} chunks counted{again}")


@dg.job(description="Embeds every recording that is due. Any number of these may run at once.")
def embed_recordings() -> None:
    """The graph of one op."""
    embed_due_recordings()


embed_recording = dg.define_asset_job(
    "embed_recording",
    # The checks are about all recordings, so they have a job of their own.
    selection=dg.AssetSelection.assets(transcript_chunks).without_checks(),
    description="Embeds one recording, as a run of its partition.",
)


class RecoveryConfig(EmbedConfig):
    """Which dead letters to try again."""

    lane: Lane = Lane.small_batch
    recording_ids: list[str] = Field(
        default=[], description="These instead of the five that have waited longest."
    )
    force: bool = Field(
        default=False,
        description="With recording_ids: also those that used up their recoveries and wait for a"
        " person.",
    )


@dg.op(
    out={},
    description="Gives the five oldest dead letters another try, with small insert batches.",
)
def embed_dead_letters(
    context: dg.OpExecutionContext, config: RecoveryConfig, engine: EmbeddingEngine
) -> Iterator[dg.AssetMaterialization]:
    """Embeds dead letters again.

    Raises:
        dg.Failure: some failed again; they may be recovered in an hour, or wait for a person.
    """

    def embed(session: Session) -> Iterator[Outcome]:
        if config.recording_ids:
            return session.retry(config.recording_ids, force=config.force)
        return session.dead_letters()

    with engine.beating(context.run.run_id, context.instance):
        yield from run_session(context, engine, config, embed, since=engine.partitions_since)


@dg.job(description="Tries dead letters again. Launch it by hand, with force, for one recording.")
def recover_dead_letters() -> None:
    """The graph of one op."""
    embed_dead_letters()


@dg.op(description="Deletes, in small batches, vectors that no chunk refers to any more.")
def sweep_unreferenced_vectors(context: dg.OpExecutionContext, engine: EmbeddingEngine) -> None:
    """Deletes in short transactions, so that readers and writers go on."""
    with engine.beating(context.run.run_id, context.instance), engine.database() as database:
        context.log.info(f"{sweep(database)} vectors deleted")


@dg.job(description="Takes away what deleted and edited calls left behind.")
def sweep_vectors() -> None:
    """The graph of one op."""
    sweep_unreferenced_vectors()


@dg.op(description="Counts in how many chunks each word is, of what was published since.")
def count_search_words(context: dg.OpExecutionContext, engine: EmbeddingEngine) -> None:
    """Counts what no worker counted at its end: what runs of single partitions published."""
    with engine.beating(context.run.run_id, context.instance):
        _count_words(context, engine)


@dg.job(name="count_words", description="Keeps the counts that search weighs words by.")
def count_words_job() -> None:
    """The graph of one op."""
    count_search_words()


@dg.op(description="Deletes runs that only looked at the system, once they are old.")
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """Deletes no run that embedded: its events say which partitions are materialized."""
    before = datetime.now(UTC) - timedelta(days=Settings().keep_runs_days)
    context.log.info(f"{retention.prune_runs(context.instance, before)} runs deleted")


@dg.job(
    description="Keeps Dagster's storage from growing by what nobody will look at again.",
    tags=_AN_HOUR,
)
def prune_runs() -> None:
    """The graph of one op."""
    delete_old_runs()


@dg.op(
    description="Builds the parts of the vector index that are worth it by now, one by one.",
)
def build_vector_index(context: dg.OpExecutionContext, engine: EmbeddingEngine) -> None:
    """Logs the same event for each part as materializing its partition would.

    Raises:
        dg.Failure: a part was not built; the next run goes on from there.
    """
    try:
        with engine.beating(context.run.run_id, context.instance):
            build_waiting_parts(context, engine)
    except EmbeddingAssetsError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


@dg.job(description="Seals what is new in the vector index, and merges small parts.")
def maintain_vector_index() -> None:
    """The graph of one op."""
    build_vector_index()


check_health = dg.define_asset_job(
    "check_health",
    selection=dg.AssetSelection.checks(health_checks),
    tags=_MINUTES,
    description="Looks at the system's health, and at the next chunks.",
)

snapshot_health = dg.define_asset_job(
    "snapshot_health",
    selection=dg.AssetSelection.assets(embedding_health),
    tags=_MINUTES,
    description="Keeps what health is now, for the trend.",
)


sync_fathom = dg.define_asset_job(
    "sync_fathom",
    selection=dg.AssetSelection.assets("fathom_calls", "fathom_transcripts").without_checks(),
    tags={"dagster/max_runtime": "1800"},
    description="Reads Fathom: what is new, what may have changed, and once a night the whole"
    " list.",
)


@dg.op(description="Forgets the calls that are older than RETENTION_DAYS, and writes the proof.")
def forget_calls_past_retention(context: dg.OpExecutionContext) -> None:
    """Forgets them everywhere, in Dagster too.

    Raises:
        dg.Failure: the role may not, or the database is away; the next run goes on.
    """
    settings = Settings()
    if settings.retention_days is None:
        raise dg.Failure("RETENTION_DAYS is not set", allow_retries=False)
    before = datetime.now(UTC) - timedelta(days=settings.retention_days)
    try:
        with open_owner_database(settings) as database, batch_file_deleter(settings) as delete_file:
            request = Request(before=before)
            if not plan(database, request).recording_ids:
                return
            places = [partial(forget_events, context.instance)]
            proof = forget(database, request, delete_file=delete_file, elsewhere=places)
    except EmbeddingAssetsError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.log.info(f"{len(proof.recording_ids)} calls forgotten: proof {proof.number}")


@dg.job(description="Forgets calls that are older than they may become.", tags=_AN_HOUR)
def forget_old_calls() -> None:
    """The graph of one op."""
    forget_calls_past_retention()


class AlertConfig(dg.Config):
    """One message for one channel."""

    channel: str = Field(description="The channel's name, as `embedding-assets alert-test` shows.")
    title: str
    text: str
    severity: Severity


@dg.op(description="Sends one alert to one channel of ALERT_URLS.")
def send_to_channel(config: AlertConfig) -> None:
    """Fails if the channel does not take it; the sensor asks for another run then.

    Raises:
        dg.Failure: naming the channel, without its URL.
    """
    channel = channels(Settings()).find(config.channel)
    if channel is None:
        raise dg.Failure(f"ALERT_URLS has no channel {config.channel} any more")
    try:
        channel.send(config.title, config.text, config.severity)
    except ChannelError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


@dg.job(
    description="Tells people of a change in health; alert_on_health_change asks for these runs.",
    # Alerts go before all other queued runs. The time limit ends a run whose process was killed.
    tags={"dagster/priority": "10", "dagster/max_runtime": "300"},
)
def send_alert() -> None:
    """The graph of one op."""
    send_to_channel()
