"""One soak from the first call to the verdicts."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from embedding_assets.engine.database import Database
from embedding_assets_tests.calls import rows
from embedding_assets_tests.soak.corpus import Corpus, Reader
from embedding_assets_tests.soak.ending import (
    REST_SECONDS,
    come_to_rest,
    last_errors,
    not_as_it_should_be,
    partitions_amiss,
    runs,
    unreported,
)
from embedding_assets_tests.soak.installation import Installation, installation
from embedding_assets_tests.soak.judging import SHORT_MINUTES, Verdict, judge, warm_up_seconds
from embedding_assets_tests.soak.killing import Kill, Killer
from embedding_assets_tests.soak.ledger import Balance, balance
from embedding_assets_tests.soak.sampling import RULES, Sampler
from embedding_assets_tests.soak.work import UNFINISHED, Changes, Searcher, Sweeper

Tell = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """All that came of a soak; it passed if nothing is amiss."""

    minutes: float
    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)
    balance: Balance = field(default_factory=Balance)
    kills: list[Kill] = field(default_factory=list)
    report_seconds: dict[str, float | None] = field(default_factory=dict)  # of each killed run
    done: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  # of the programs, its last errors

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def soak(minutes: float, seed: int, tell: Tell) -> Result:
    """Installs, works, kills, lets everything come to rest, and judges.

    Args:
        minutes: of work; installing and coming to rest take some more.
        seed: of everything that is left to chance, but for what the machine decides.
        tell: gets a line every minute.
    """
    result = Result(minutes, seed)
    with (
        installation() as running,
        Database(running.url, application_name="soak") as database,
    ):
        soaking = _Soak(running, database, result)
        soaking.run(tell)
        soaking.judge()
    return result


class _Soak:
    """Everything that goes on at the same time, in one installation."""

    def __init__(self, running: Installation, database: Database, result: Result) -> None:
        seeds = random.Random(result.seed)
        self.running = running
        self.database = database
        self.result = result
        self.warm_up = warm_up_seconds(result.minutes)
        self.corpus = Corpus(database, seeds.randrange(2**31))
        self.changes = Changes(database, self.corpus, seeds.randrange(2**31))
        self.reader = Reader(running.url, self.corpus)
        self.searcher = Searcher(running, self.corpus, seeds.randrange(2**31))
        self.sweeper = Sweeper(running.url)
        self.sampler = Sampler(running)
        self.killer = Killer(running, seeds.randrange(2**31), self.warm_up)

    def run(self, tell: Tell) -> None:
        """Works for the minutes of the result, and comes to rest."""
        self.changes.begin()
        self._first_calls_published()
        for thread in (self.reader, self.searcher, self.sweeper, self.sampler, self.killer):
            thread.start()
        self._work(tell)
        for thread in (self.killer, self.sampler, self.sweeper, self.searcher):
            thread.end()
        tell("the work is over: the daemon and the search server are killed once more")
        self.killer.kill_programs(self.database)
        self.result.amiss += come_to_rest(self.running, self.database, tell)
        self.reader.end()

    def judge(self) -> None:
        """Fills in the result."""
        result, kills = self.result, self.killer.kills
        for thread in (self.reader, self.searcher, self.sweeper, self.killer, self.sampler):
            result.amiss += thread.amiss
        result.amiss += not_as_it_should_be(self.database, self.corpus)
        result.amiss += partitions_amiss(self.running, self.corpus)
        result.balance = balance(
            self.database,
            self.running.api.answers,
            self.corpus.recordings_of,
            self.searcher.questions,
            self.killer.deaths,
        )
        result.amiss += result.balance.amiss
        result.samples = [(at, dict(figures)) for at, figures in self.sampler.samples]
        result.verdicts = judge(result.samples, self.warm_up, RULES)
        result.amiss += [each.told for each in result.verdicts if each.is_flat is False]
        result.kills = kills
        result.runs, result.report_seconds = runs(self.running, kills)
        result.amiss += unreported(kills, result.report_seconds)
        if not self.running.alerts.hooks and result.minutes >= SHORT_MINUTES:
            result.amiss.append("nobody was alerted, though much was due at times")
        result.log = last_errors(self.running)
        result.done = {
            **self.changes.done,
            **{f"searches, {name}": n for name, n in self.searcher.done.items()},
            "vectors swept": self.sweeper.swept,
            "alerts": len(self.running.alerts.hooks),
            "looks of the reader": self.reader.looks,
            "versions seen": len(self.reader.seen),
            "kills": len(kills),
        }

    def _first_calls_published(self) -> None:
        """What comes first comes all at once; the soak is about what follows."""
        deadline = time.monotonic() + REST_SECONDS
        while rows(self.database, UNFINISHED)[0][0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the first calls are not published in {REST_SECONDS:.0f} s")
            time.sleep(1)

    def _work(self, tell: Tell) -> None:
        started = time.monotonic()
        told = 0
        while (passed := time.monotonic() - started) < 60 * self.result.minutes:
            for part in self.running.parts:
                part.restart_if_ended()
            self.changes.tick()
            if passed // 60 > told:
                told = int(passed // 60)
                tell(f"minute {told}: {dict(self.changes.done)}, {len(self.killer.kills)} kills")
            time.sleep(1)
