"""The command by which calls come in from a recorder's API."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import click

from embedding_assets.cli.terminal import FAILED, as_json_option, err, out
from embedding_assets.engine.errors import ConfigurationError, InvalidInputError
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.group()
def sync() -> None:
    """Read a recorder's calls through its API, as the schedules of Dagster do."""


@sync.command()
@click.option(
    "--from",
    "since",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    metavar="DATE",
    help="Read meetings of then (UTC) and later again, also old ones that were edited since.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="For how long at most; another run goes on where this one ends.",
)
@click.option(
    "--believe",
    is_flag=True,
    help="Believe that meetings are gone, though many are missing at once.",
)
@click.option("--forget", metavar="KEY", help="Forget what this key saw; its calls stay.")
@as_json_option
@click.pass_context
def fathom(  # noqa: PLR0917  (click passes each option)
    ctx: click.Context,
    since: datetime | None,
    minutes: float,
    believe: bool,
    forget: str | None,
    as_json: bool,
) -> None:
    """Read Fathom's meetings with the keys of FATHOM_API_KEYS."""
    from embedding_assets.recorders.sync.fathom import forget_key, synchronise  # noqa: PLC0415
    from embedding_assets.server.connections import open_source_database  # noqa: PLC0415
    from embedding_assets.wiring import fathom_keys, fathom_options  # noqa: PLC0415

    settings = Settings()
    keys = fathom_keys(settings)
    if forget is not None:
        if forget in {key.name for key in keys}:
            raise InvalidInputError(f"{forget} is in FATHOM_API_KEYS: take it out there first")
        with open_source_database(settings) as database:
            forget_key(database, forget)
        out.print(f"{printable(forget)} is forgotten", markup=False)
        return
    if not keys:
        raise ConfigurationError("FATHOM_API_KEYS is not set: write, for instance, ann=THE_KEY")
    options = replace(
        fathom_options(settings),
        again_from=None if since is None else since.replace(tzinfo=UTC),
        believes=believe,
        budget=timedelta(minutes=minutes),
    )
    with open_source_database(settings) as database:
        report = synchronise(
            database, keys, options, tell=lambda line: err.print(printable(line), markup=False)
        )
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2, default=sorted))
    else:
        for key in report.keys:
            state = "everything new is read" if key.is_current else "not everything new is read"
            out.print(
                f"{key.name}: {state}, {len(key.changed)} calls added or changed,"
                f" {len(key.unreadable)} unreadable, {key.gone} gone at the recorder",
                markup=False,
            )
        if report.withdrawn:
            out.print(f"{len(report.withdrawn)} calls withdrawn")
    is_done = all(key.is_current and key.problem is None for key in report.keys)
    ctx.exit(0 if is_done else FAILED)
