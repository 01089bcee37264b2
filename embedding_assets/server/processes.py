"""Server processes: which live, and how they are ended."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from embedding_assets.engine.errors import EmbeddingAssetsError

KILL_SECONDS = 10.0
POLL_SECONDS = 0.01


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie, dead but not yet reaped by its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def is_postmaster(process: psutil.Process) -> bool:
    """Whether it is a server's first process, by its arguments: the others have titles."""
    with suppress(psutil.Error):
        command = process.cmdline()
        return bool(command) and not command[0].startswith("postgres: ")
    return False


def send_signal(process: psutil.Process, number: signal.Signals) -> None:
    """Signals a process unless it has ended."""
    with suppress(psutil.NoSuchProcess):  # psutil compares start times: never a successor
        process.send_signal(number)


def wait_until_gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Waits until all have ended; False if they have not in time."""
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end_all(processes: Sequence[psutil.Process]) -> None:
    """End server processes that nobody can reach: crash recovery makes good what they leave."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in processes:
            send_signal(process, number)
        if wait_until_gone(processes, KILL_SECONDS):
            return
    pids = ", ".join(str(process.pid) for process in processes if is_alive(process))
    raise EmbeddingAssetsError(f"Postgres processes could not be ended: {pids}.")
