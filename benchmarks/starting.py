"""How long a person waits for the command: for its help, the status, a search, a run without work.

Each from the command's start to its end, by turns, as multiples of the help's time; the help reads
no setting and no database.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import Figure, Installation, Spent, installation, loopback_api

ROUNDS = 11
RECORDINGS = 20
DIMENSIONS = 384


@dataclass(frozen=True, slots=True)
class Start:
    """A command that is waited for, and how many times the help's time that should take at most."""

    what: str
    arguments: tuple[str, ...]
    aim: float | None = None


HELP = Start("--help", ("--help",))
OFFLINE = (
    HELP,
    Start("status", ("status",), 2),
    Start("monitor", ("monitor",), 2),
    Start("search with the offline model", ("search", "what does it cost per truck?"), 3),
    Start("a run without work", ("run",)),
)
API = (HELP, Start("search with an API", ("search", "what does it cost per truck?"), 3))


def measure() -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    with installation() as there:
        figures += _by_turns(there, OFFLINE)
    with installation() as there, loopback_api(dimensions=DIMENSIONS) as settings:
        there.environment.update(settings, EMBEDDING_DIMENSIONS=str(DIMENSIONS))
        figures += _by_turns(there, API)[2:]  # the help's are told already
    return figures


def _by_turns(there: Installation, starts: Sequence[Start]) -> list[Figure]:
    there.load(RECORDINGS)
    there.command("run")
    spent: dict[Start, list[Spent]] = {start: [] for start in starts}
    for number in range(ROUNDS + 1):
        for start, each in spent.items():
            once = there.command(*start.arguments)
            if number:  # the first reads what the next ones find in memory
                each.append(once)
    return [figure for start in starts for figure in _figures(start, spent)]


def _figures(start: Start, spent: dict[Start, list[Spent]]) -> list[Figure]:
    wall, cpu = (statistics.median(each.wall for each in spent[start]), _cpu(spent[start]))
    ratio = wall / statistics.median(each.wall for each in spent[HELP])
    return [
        Figure(
            start.what,
            wall,
            "s",
            ratio,
            HELP.what,
            aim="" if start.aim is None else f"<= {start.aim:g}",
            reached=None if start.aim is None else ratio <= start.aim,
        ),
        Figure(f"{start.what}: client CPU", cpu, "s", cpu / _cpu(spent[HELP]), HELP.what),
    ]


def _cpu(spent: Sequence[Spent]) -> float:
    return statistics.median(each.cpu for each in spent)
