"""Soaks an installation, prints a table of its figures, and fails if one is not flat.

python -m embedding_assets_tests.soak [--minutes 60] [--seed N] [--output FILE.json]
"""

import json
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from embedding_assets_tests.soak.judging import Verdict
from embedding_assets_tests.soak.soak import Result, soak

NARROWEST = 150  # columns, so that a log holds whole lines


@click.command(help=__doc__)
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(min=1))
@click.option("--seed", default=None, type=int, help="Of what is left to chance; else the time.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="All as JSON.")
def main(minutes: float, seed: int | None, output: Path | None) -> None:
    """Soaks, tells, and exits with 1 if something is amiss."""
    seed = int(time.time()) if seed is None else seed
    click.echo(f"{minutes:g} minutes with the seed {seed}", err=True)
    result = soak(minutes, seed, lambda line: click.echo(line, err=True))
    if output is not None:
        output.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
    console = Console()
    Console(width=max(console.width, NARROWEST)).print(table(result.verdicts))
    for line in summary(result):
        click.echo(line)
    sys.exit(1 if result.amiss else 0)


def table(verdicts: list[Verdict]) -> Table:
    """One row a figure."""
    shown = Table("what", "unit", "start", "after warm-up", "end", "most", "an hour", "verdict")
    for each in verdicts:
        values = (each.start, each.after_warm_up, each.end, each.most, each.per_hour)
        verdict = {None: "grows", True: "flat", False: "NOT FLAT"}[each.is_flat]
        shown.add_row(each.name, each.unit, *(f"{value:,.1f}" for value in values), verdict)
    return shown


def summary(result: Result) -> list[str]:
    """What was done, what it cost, and what is amiss."""
    paid = result.balance
    reported = [seconds for seconds in result.report_seconds.values() if seconds is not None]
    return [
        f"done: {result.done}",
        f"runs: {result.runs}",
        f"the server counted {paid.server_requests} requests and {paid.server_tokens} tokens, the"
        f" ledger {paid.ledger_requests} and {paid.ledger_tokens}; the kills explain a difference"
        f" of {paid.lost_requests_at_most} and {paid.lost_tokens_at_most} at most",
        f"{len(reported)} of {len(result.report_seconds)} killed runs were reported"
        + (f", after {max(reported):.0f} s at most" if reported else ""),
        *(result.log if result.amiss else ()),
        *(f"AMISS: {each}" for each in result.amiss),
        "failed" if result.amiss else "passed",
    ]


if __name__ == "__main__":
    main()
