"""Logs the worker's materializations in batches.

Dagster opens two connections to its storage for each event that is stored alone, which costs more
than embedding a short recording. It stores a batch in the same two.
"""

import contextlib
import os
import threading
from collections.abc import Iterable
from uuid import uuid4

import dagster as dg

# Dagster's own way to write a batch, which it uses for the outputs of partition ranges.
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

from embedding_assets.engine.background import meanwhile

MOST_IN_A_BATCH = 100
LONGEST_WAIT = 1.0  # seconds that an event may lie unwritten: a killed process loses those


def log_in_batches(
    context: dg.OpExecutionContext, materializations: Iterable[dg.AssetMaterialization]
) -> int:
    """Logs each event at most a second after it comes, the rest at the end; gives how many.

    An exception of the iterable is raised after the events before it are logged.
    """
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(MOST_IN_A_BATCH))
    batch = _Batch(context)
    logged = 0
    try:
        with meanwhile(batch.write_regularly):
            for materialization in materializations:
                batch.add(materialization)
                logged += 1
    finally:
        batch.write()
    return logged


class _Batch:
    """Events that are not written yet; used by the run's thread and the one that writes."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._step = context.get_step_execution_context()
        self._events: list[dg.AssetMaterialization] = []
        self._lock = threading.Lock()

    def add(self, event: dg.AssetMaterialization) -> None:
        with self._lock:
            self._events.append(event)
            if len(self._events) >= MOST_IN_A_BATCH:
                self._write()

    def write(self) -> None:
        with self._lock:
            self._write()

    def write_regularly(self, ended: threading.Event) -> None:
        while not ended.wait(LONGEST_WAIT):
            # What was not written is kept; the run's own thread tries it last, and tells.
            with contextlib.suppress(Exception):
                self.write()

    def _write(self) -> None:
        events = self._events
        batch_id = str(uuid4())
        for number, event in enumerate(events, 1):
            last = DagsterEventBatchMetadata(batch_id, is_end=number == len(events))
            DagsterEvent.asset_materialization(self._step, event, batch_metadata=last)
        self._events = []
