"""Which runs are alive, and what to launch in place of failed ones: pure decisions."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

RECORDINGS_A_WORKER = 100
SINGLE_RUNS = 10  # more recordings than this are launched again as one worker


class Worker(NamedTuple):
    """A run of the worker job that Dagster counts as unfinished."""

    run_id: str
    started_at: datetime | None  # None: it waits in the run queue, or is being started


def living(
    workers: Sequence[Worker], holders: Collection[str], now: datetime, lease: timedelta
) -> list[str]:
    """The workers that can be working: young, or holding a lease that has not run out.

    The run of a killed process stays "started" for ever under the default launcher, so the run's
    status alone does not tell.
    """
    return [
        worker.run_id
        for worker in workers
        if worker.started_at is None or worker.run_id in holders or now - worker.started_at < lease
    ]


def workers_wanted(due: int, alive: int, most: int) -> int:
    """How many workers to start: one for every hundred recordings due, up to the set number."""
    return max(0, min(most, -(-due // RECORDINGS_A_WORKER)) - alive)


class Silence(NamedTuple):
    """A run that does not say that it is alive, and since when the sensor knows."""

    beaten_at: str  # when it last did; empty: never
    noticed_at: float  # Unix seconds


def dead(
    silent: Mapping[str, str], before: Mapping[str, Silence], now: float, patience: timedelta
) -> tuple[list[str], dict[str, Silence]]:
    """The runs to take for dead, and those to look at again.

    After the database was away, or this host asleep, all runs are silent until their next beat: so
    a run is dead if it is silent still, some beats after that was noticed.

    Args:
        silent: by run, when it last said that it is alive.
        before: what the last look noticed.
        now: Unix seconds.
        patience: how long after the first look a living run has spoken again.
    """
    noticed: dict[str, Silence] = {}
    for run_id, beaten_at in silent.items():
        since = before.get(run_id)
        if since is None or since.beaten_at != beaten_at:
            since = Silence(beaten_at, now)
        noticed[run_id] = since
    found = [
        each
        for each, since in noticed.items()
        if since.noticed_at <= now - patience.total_seconds()
    ]
    return found, {each: since for each, since in noticed.items() if each not in found}


class Relaunch(NamedTuple):
    """What to launch in place of a run that failed or was cancelled."""

    partitions: list[str]  # one run for each of these recordings
    worker: list[str]  # one run for all of these recordings


def relaunch(undone: Sequence[str], keys: Collection[str]) -> Relaunch:
    """A few get a run each, so that their partitions show the end; many share one.

    So do those without a partition, which are not among the `keys`.
    """
    singly = [each for each in undone if each in keys] if len(undone) <= SINGLE_RUNS else []
    return Relaunch(partitions=singly, worker=[each for each in undone if each not in singly])
