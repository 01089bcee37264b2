"""Commands about the people in calls."""

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from embedding_assets.cli.terminal import as_json_option, out
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.group()
def people() -> None:
    """Who is in the calls, and which addresses are one person's."""


@people.command(name="list")
@click.argument("pattern", default="")
@as_json_option
def list_(pattern: str, as_json: bool) -> None:
    """Show people whose name or address holds PATTERN, with the number of their calls."""
    from embedding_assets.recorders.people import MOST_LISTED, list_people  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    with open_database(Settings()) as database:
        found = list_people(database, pattern)
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=2))
        return
    _show(found)
    if len(found) == MOST_LISTED:
        out.print(f"the first {MOST_LISTED:,}; name a part of an address to see others")


@people.command()
@click.argument("email")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
def merge(email: str, others: tuple[str, ...]) -> None:
    """Make the addresses OTHER and EMAIL one person, known by EMAIL.

    A search for a person by any of the addresses then finds the calls of all.
    """
    from embedding_assets.recorders import people as known  # noqa: PLC0415
    from embedding_assets.server.connections import open_source_database  # noqa: PLC0415

    with open_source_database(Settings()) as database:
        _show([known.merge(database, email, list(others))])


@people.command()
@click.argument("email")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
def split(email: str, others: tuple[str, ...]) -> None:
    """Make the addresses OTHER, which were merged into EMAIL, people of their own again."""
    from embedding_assets.recorders import people as known  # noqa: PLC0415
    from embedding_assets.server.connections import open_source_database  # noqa: PLC0415

    with open_source_database(Settings()) as database:
        _show([known.split(database, email, list(others))])


def _show(found: Sequence[Any]) -> None:
    if not found:
        out.print("nobody: people are known by the addresses that recorders give")
        return
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("e-mail", overflow="fold")
    table.add_column("name", overflow="fold")
    table.add_column("calls", justify="right")
    table.add_column("also", overflow="fold")
    for each in found:
        table.add_row(
            Text(printable(each.email)),
            Text(printable(each.name or "")),
            f"{each.calls:,}",
            Text(printable(", ".join(each.aliases))),
        )
    out.print(table)
