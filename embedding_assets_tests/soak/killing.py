"""One SIGKILL a minute: of a worker's run mostly, sometimes of another run, the daemon, search."""

import random
import re
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg

from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import rows
from embedding_assets_tests.soak.installation import Installation, Supervised
from embedding_assets_tests.soak.ledger import Death

KILL_SECONDS = 60.0
WORKERS = ("embed_recordings", "embed_recording", "recover_dead_letters")
STARTED = """
    SELECT runs.run_id, runs.pipeline_name,
           (SELECT event FROM event_logs
            WHERE event_logs.run_id = runs.run_id AND event LIKE '%(pid: %' ORDER BY id LIMIT 1)
    FROM runs WHERE status = 'STARTED' ORDER BY runs.id DESC LIMIT 20
"""
HELD = """
    SELECT claimed_by AS run_id, array_agg(recording_id) AS recordings,
           extract(epoch FROM min(started_at))::float AS since
    FROM embedding_queue WHERE status = 'processing' GROUP BY claimed_by
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: of what, of which run if it was one, and how many recordings that held."""

    at: float  # Unix seconds
    what: str
    run_id: str | None
    held: int


class Killer(threading.Thread):
    """Kills until it is told to end; long-lived programs only in the warm-up.

    Later they live on, so that their memory can be judged over the whole rest of the hour.
    """

    def __init__(self, installation: Installation, seed: int, warm_up: float) -> None:
        super().__init__(daemon=True)
        self.kills: list[Kill] = []
        self.deaths: list[Death] = []
        self.amiss: list[str] = []
        self._installation = installation
        self._random = random.Random(seed)
        self._warm_up = warm_up
        self._began = time.monotonic()
        self._minute = 0
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            with Database(self._installation.url, application_name="soak killer") as database:
                while not self._ended.wait(self._until_next()):
                    self._minute += 1
                    self._kill(database)
        except Exception as error:  # an error in a thread would go unseen
            self.amiss.append(repr(error))

    def end(self) -> None:
        """Returns when the last kill is over."""
        self._ended.set()
        self.join(timeout=120)

    def kill_programs(self, database: Database) -> None:
        """Kills the daemon and the search server; both are up again at its end."""
        self._kill_search()
        self._kill_daemon(database)

    def _until_next(self) -> float:
        """Seconds to the next kill, at a random moment of its minute."""
        due = KILL_SECONDS * (self._minute + self._random.random())
        return max(1.0, self._began + due - time.monotonic())

    def _kill(self, database: Database) -> None:
        is_warming_up = time.monotonic() - self._began < self._warm_up / 2
        if is_warming_up and self._random.random() < 0.5:
            self._random.choice([self._kill_search, lambda: self._kill_daemon(database)])()
            return
        wants_worker = self._random.random() < 0.8
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline and not self._ended.is_set():
            if self._kill_run(database, wants_worker=wants_worker):
                return
            time.sleep(0.3)
            # Other runs are short and seldom.
            wants_worker = wants_worker or time.monotonic() > deadline - KILL_SECONDS / 2

    def _kill_run(self, database: Database, *, wants_worker: bool) -> bool:
        found = [
            (run_id, job, pid)
            for run_id, job, pid in self._runs()
            if (job in WORKERS) == wants_worker
        ]
        if not found:
            return False
        run_id, job, pid = self._random.choice(found)
        self._wait_for_a_moment(database, run_id)
        try:
            psutil.Process(pid).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:  # it came to its end
            return False
        self._died(database, {run_id: job})
        return True

    def _wait_for_a_moment(self, database: Database, run_id: str) -> None:
        """Mostly until shortly after the run holds something; else until any moment."""
        deadline = time.monotonic() + self._random.choice([0, 2, 5, 5, 5])
        while time.monotonic() < deadline:
            if any(row.run_id == run_id for row in rows(database, HELD)):
                time.sleep(self._random.uniform(0, 2))
                return
            time.sleep(0.05)

    def _runs(self) -> list[tuple[str, str, int]]:
        """Runs that have a process of this installation: their ids, jobs and processes."""
        family = {process.pid for process in self._installation.dev.family()}
        with psycopg.connect(
            self._installation.dagster_url, application_name="soak killer"
        ) as connection:
            started = connection.execute(STARTED).fetchall()
        runs = []
        for run_id, job, event in started:
            pid = re.search(r"\(pid: (\d+)\)", event or "")
            if pid and int(pid[1]) in family:
                runs.append((run_id, job, int(pid[1])))
        return runs

    def _died(self, database: Database, jobs: Mapping[str, str]) -> None:
        """Notes what these runs held, which are dead by now; with them the job of each."""
        held = {row.run_id: row for row in rows(database, HELD)}
        now = time.time()
        for run_id, job in jobs.items():
            recordings: frozenset[str] = frozenset()
            if run_id in held:
                recordings = frozenset(held[run_id].recordings)
                self.deaths.append(Death(run_id, held[run_id].since, now, recordings))
            self.kills.append(Kill(now, job, run_id, len(recordings)))

    def _kill_daemon(self, database: Database) -> None:
        family = self._installation.dev.family()
        self.kills.append(Kill(time.time(), "the daemon", None, 0))
        for process in family:
            with suppress(psutil.NoSuchProcess):
                if "dagster._daemon" in process.cmdline():
                    process.kill()
        # With its daemon gone the program ends; a supervisor ends what it leaves behind.
        jobs = {run_id: job for run_id, job, _ in self._runs()}
        self._wait_for_the_end(self._installation.dev)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Whoever holds something by now is dead, too: one that was only just starting.
        holders = {row.run_id: "embed_recordings" for row in rows(database, HELD)}
        self._died(database, holders | jobs)
        self._installation.dev.wait_until_up()

    def _kill_search(self) -> None:
        search = self._installation.search
        search.is_being_killed = True
        for process in search.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.kills.append(Kill(time.time(), "the search server", None, 0))
        self._wait_for_the_end(search)
        search.wait_until_up()
        search.is_being_killed = False

    def _wait_for_the_end(self, part: Supervised) -> None:
        deadline = time.monotonic() + 120
        while part.is_running() and time.monotonic() < deadline:
            time.sleep(0.2)
