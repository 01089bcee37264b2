"""Everything Dagster loads, by name."""

import dagster as dg

from embedding_assets.assets.sources import fathom_calls, fathom_transcripts
from embedding_assets.assets.transcript_chunks import transcript_chunks
from embedding_assets.jobs import (
    embed_recording,
    embed_recordings,
    recover_dead_letters,
    sweep_vectors,
)
from embedding_assets.resources import EmbeddingEngine
from embedding_assets.schedules import build_schedules
from embedding_assets.sensors import (
    discover_recordings,
    relaunch_cancelled_recordings,
    relaunch_failed_recordings,
)
from embedding_assets.settings import Settings

defs = dg.Definitions(
    assets=[fathom_calls, fathom_transcripts, transcript_chunks],
    jobs=[embed_recordings, embed_recording, recover_dead_letters, sweep_vectors],
    schedules=build_schedules(Settings()),
    sensors=[discover_recordings, relaunch_failed_recordings, relaunch_cancelled_recordings],
    resources={"engine": EmbeddingEngine()},
    # A second process for each run costs two seconds and gains nothing here.
    executor=dg.in_process_executor,
)
