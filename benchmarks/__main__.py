"""Measures, prints one table beside the committed figures, and writes the new ones in their place.

python -m benchmarks [--only NAME]

The figures are in `benchmarks/figures.json`, which is committed with a change that moves them, so
that `git diff` shows which path became slower. The comparison is with the last commit, whatever an
earlier run has left in the file; `git restore` takes a run back.
"""

import importlib
import time
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.comparison import FIGURES, Measured, committed, compared, gone, merge
from benchmarks.measuring import ROOT, Figure

MEASUREMENTS = (
    "throughput", "peers", "vector_index", "orchestration", "growth", "money", "pace", "access",
    "serving", "starting",
)  # fmt: skip
# They take four minutes and more each, and are measured only when they are named.
BY_NAME = ("many_recordings", "million", "scaling")
NARROWEST = 160  # columns, so that a log holds whole lines


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(MEASUREMENTS + BY_NAME))
def main(only: tuple[str, ...]) -> None:
    """Measures everything, or what --only names."""
    before = committed()
    results: dict[str, Measured] = {}
    try:
        for name in only or MEASUREMENTS:
            click.echo(f"measuring {name}", err=True)
            at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
            figures = importlib.import_module(f"benchmarks.{name}").measure()
            results[name] = Measured(figures, time.monotonic() - started, at)
            merge(FIGURES, results)
    finally:  # what was measured is shown, also if the next one fails
        console = Console()
        Console(width=max(console.width, NARROWEST)).print(table(results, before))
        for line in summary(results, before):
            click.echo(line)


def table(results: dict[str, Measured], before: dict[str, Measured]) -> Table:
    """One row a figure, and what it was in the last commit."""
    shown = Table("what", "value", "unit", "ratio", "of", "aim", "reached", "committed", "")
    for name, measured in results.items():
        shown.add_section()
        shown.add_row(f"[bold]{name}[/], {measured.seconds:.0f} s")
        for figure, was, verdict in compared(measured, before.get(name)):
            shown.add_row(
                escape(f"{figure.what} ({figure.note})" if figure.note else figure.what),
                _number(figure.value),
                figure.unit,
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                escape(figure.ratio_of),
                escape(figure.aim),
                "" if figure.reached is None else ("yes" if figure.reached else "NO"),
                "" if was is None else _short(was),
                verdict,
            )
    return shown


def summary(results: dict[str, Measured], before: dict[str, Measured]) -> list[str]:
    """What got worse, and how long all of it took."""
    lines = [
        f"{name}, {figure.what} ({figure.unit}): {_short(figure)}, was {_short(was)}: {verdict}"
        for name, measured in results.items()
        for figure, was, verdict in compared(measured, before.get(name))
        if verdict and was is not None
    ]
    lines += [
        f"{name}, {figure.what}: no longer measured"
        for name, measured in results.items()
        for figure in gone(measured, before.get(name))
    ]
    total = sum(measured.seconds for measured in results.values())
    return [
        *(lines or ["nothing is worse than what is committed"] if before else []),
        f"{total / 60:.1f} minutes in all; the figures are in {FIGURES.relative_to(ROOT)}",
    ]


def _short(figure: Figure) -> str:
    """The number by which a figure is compared, or else shown."""
    return _number(figure.value) if figure.ratio is None else f"{figure.ratio:.2f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
