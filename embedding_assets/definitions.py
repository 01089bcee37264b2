"""Everything Dagster loads, by name."""

import dagster as dg

from embedding_assets.defs.assets.embedding_health import embedding_health
from embedding_assets.defs.assets.retrieval_quality import retrieval_quality
from embedding_assets.defs.assets.sources import fathom_calls, fathom_transcripts, synchronised
from embedding_assets.defs.assets.transcript_chunks import transcript_chunks
from embedding_assets.defs.assets.vector_index import vector_index
from embedding_assets.defs.batches import embed_in_batches
from embedding_assets.defs.checks import health_checks
from embedding_assets.defs.jobs import (
    check_health,
    count_words_job,
    embed_recording,
    embed_recordings,
    forget_old_calls,
    maintain_vector_index,
    prune_runs,
    recover_dead_letters,
    send_alert,
    snapshot_health,
    sweep_vectors,
    sync_fathom,
)
from embedding_assets.defs.resources import EmbeddingEngine, Recorders
from embedding_assets.defs.schedules import build_schedules
from embedding_assets.defs.sensors import (
    alert_on_health_change,
    discover_recordings,
    relaunch_cancelled_recordings,
    relaunch_failed_recordings,
    report_dead_runs,
)
from embedding_assets.settings import Settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything by the settings: with keys of a recorder, its tables are materialized."""
    sources = (fathom_calls, fathom_transcripts)
    is_synchronised = settings.fathom_api_keys is not None
    return dg.Definitions(
        assets=[
            *([synchronised(sources)] if is_synchronised else sources),
            transcript_chunks,
            vector_index,
            embedding_health,
            retrieval_quality,
        ],
        asset_checks=[health_checks],
        jobs=[
            embed_recordings,
            embed_recording,
            embed_in_batches,
            recover_dead_letters,
            sweep_vectors,
            count_words_job,
            maintain_vector_index,
            prune_runs,
            check_health,
            snapshot_health,
            send_alert,
            *([sync_fathom] if is_synchronised else []),
            *([forget_old_calls] if settings.retention_days else []),
        ],
        schedules=build_schedules(settings),
        sensors=[
            discover_recordings,
            relaunch_failed_recordings,
            relaunch_cancelled_recordings,
            report_dead_runs,
            alert_on_health_change,
        ],
        resources={"engine": EmbeddingEngine(), "recorders": Recorders()},
        # A second process for each run costs two seconds and gains nothing here.
        executor=dg.in_process_executor,
    )


defs = build_definitions(Settings())
