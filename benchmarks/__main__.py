"""Measures, prints one table of ratios, and writes them as JSON.

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

MEASUREMENTS = ("throughput", "peers", "vector_index", "orchestration", "growth", "money")
RESULTS = Path(__file__).parent / "results" / "bench.json"


@click.command()
@click.option("--only", multiple=True, type=click.Choice(MEASUREMENTS))
@click.option("--json", "path", type=Path, default=RESULTS, show_default=True)
def main(only: tuple[str, ...], path: Path) -> None:
    """Measures everything, or what --only names; minutes to an hour."""
    results: dict[str, list[Figure]] = {}
    for name in only or MEASUREMENTS:
        results[name] = importlib.import_module(f"benchmarks.{name}").measure()
        Console().print(_table(name, results[name]))
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": {name: [asdict(figure) for figure in each] for name, each in results.items()},
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _table(name: str, figures: list[Figure]) -> Table:
    table = Table("what", "value", "unit", "ratio", "of", "aim", "reached", title=name)
    for figure in figures:
        table.add_row(
            escape(figure.what),
            _number(figure.value),
            figure.unit,
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.ratio_of,
            figure.aim,
            "" if figure.reached is None else ("yes" if figure.reached else "NO"),
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
