"""Measures, prints one table of figures and ratios, and writes them as JSON.

python -m benchmarks [--only NAME] [--json FILE]
"""

import importlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.measuring import Figure

MEASUREMENTS = (
    "throughput", "peers", "vector_index", "orchestration", "growth", "money", "pace", "access",
    "serving",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results" / "bench.json"
NARROWEST = 140  # columns, so that a log holds whole lines

Results = dict[str, list[Figure]]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(MEASUREMENTS))
@click.option("--json", "path", type=Path, default=RESULTS, show_default=True)
def main(only: tuple[str, ...], path: Path) -> None:
    """Measures everything, or what --only names; half an hour and more."""
    results: Results = {}
    for name in only or MEASUREMENTS:
        click.echo(f"measuring {name}", err=True)
        results[name] = importlib.import_module(f"benchmarks.{name}").measure()
        _save(path, results)  # what was measured so far is not lost if the next one fails
    console = Console()
    Console(width=max(console.width, NARROWEST)).print(_table(results))


def _save(path: Path, results: Results) -> None:
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": {name: [asdict(figure) for figure in each] for name, each in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _table(results: Results) -> Table:
    table = Table("what", "value", "unit", "ratio", "of", "aim", "reached")
    for name, figures in results.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/]")
        for figure in figures:
            table.add_row(
                escape(figure.what),
                _number(figure.value),
                figure.unit,
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                escape(figure.ratio_of),
                escape(figure.aim),
                "" if figure.reached is None else ("yes" if figure.reached else "NO"),
            )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
