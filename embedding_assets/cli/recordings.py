"""Commands by which recordings come in."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import click

from embedding_assets.cli.terminal import FAILED, as_json_option, err, out, spinner
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


def sources(paths: Sequence[str]) -> list[Path | Literal["-"]]:
    """The arguments as paths; - is standard input."""
    return [cast("Literal['-']", path) if path == "-" else Path(path) for path in paths]


@click.command(name="import")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--replace",
    "replace_more",
    is_flag=True,
    help="Let a transcript replace one that tells more, as when parts were cut on purpose.",
)
@click.option(
    "--as",
    "importer",
    metavar="EMAIL",
    help="Who may see these calls, where nothing says who was there.",
)
@as_json_option
@click.pass_context
def import_(
    ctx: click.Context,
    paths: tuple[str, ...],
    replace_more: bool,
    importer: str | None,
    as_json: bool,
) -> None:
    """Import recordings from files, folders or standard input (-).

    Reads what Fathom, Google Meet, Teams, Zoom, Webex, Otter, Fireflies, Gong, Granola, Grain,
    tl;dv, Read AI and speech-to-text write, captions (VTT, SRT, SBV) and JSON lines; the content
    tells which, see docs/recorders.md. Importing a recording again corrects what differs and
    queues it only if something was changed; what is rejected is named with its place and the
    reason, and everything else is imported.
    """
    from embedding_assets.recorders.importing import import_recordings  # noqa: PLC0415
    from embedding_assets.server.connections import open_source_database  # noqa: PLC0415

    with open_source_database(Settings()) as database, spinner("importing") as progress:
        report = import_recordings(
            database, sources(paths), progress, replace_more=replace_more, importer=importer
        )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for notice in report.notices:
            err.print("note:", style="yellow", end=" ")
            err.print(printable(str(notice)), markup=False)
        for rejection in report.rejected:
            err.print("rejected:", style="red", end=" ")
            err.print(printable(str(rejection)), markup=False)
        out.print(
            f"{report.imported} imported, {report.unchanged} unchanged,"
            f" {len(report.rejected)} rejected"
        )
    ctx.exit(FAILED if report.rejected else 0)


@click.command()
@click.option("--recordings", type=click.IntRange(0), default=100, show_default=True)
@click.option("--long", type=click.IntRange(0), default=0, help="How many are over three hours.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same recordings.")
def sample(recordings: int, long: int, seed: int) -> None:
    """Write made-up recordings as JSON lines to standard output, for scale tests.

    Example: embedding-assets sample --recordings 1000 | embedding-assets import -
    """
    from embedding_assets.recorders.samples.generate import generate, write_jsonl  # noqa: PLC0415

    write_jsonl(generate(recordings, long, seed), sys.stdout)
