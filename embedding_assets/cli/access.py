"""Commands about who may see which call."""

import json
from typing import Any

import click

from embedding_assets.cli.terminal import FAILED, as_json_option, err, out
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.group()
def access() -> None:
    """Who may see which call, as recorders say it and ACCESS_POLICY reads it."""


@access.command()
def on() -> None:
    """Let everybody see only the calls that are theirs. Again after a change of ACCESS_*.

    As the role that owns the tables. Roles that publish see everything, unless they name a reader.
    """
    from embedding_assets.search.access import turn_on  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import access_policy  # noqa: PLC0415

    settings = Settings()
    with open_database(settings) as database:
        _show(turn_on(database, access_policy(settings)))


@access.command()
def off() -> None:
    """Let everybody who may search see every call. As the role that owns the tables."""
    from embedding_assets.search.access import turn_off  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    with open_database(Settings()) as database:
        _show(turn_off(database))


@access.command()
@click.argument("who_or_what", default="", metavar="[RECORDING|READER]")
@as_json_option
@click.pass_context
def show(ctx: click.Context, who_or_what: str, as_json: bool) -> None:
    """Show who sees a RECORDING and why, or which calls a READER (an address, a user's id) sees.

    Without an argument: whether access is on, by which policy, and which roles see everything.
    """
    from embedding_assets.search import access as known  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    with open_database(Settings()) as database:
        if not who_or_what:
            _show(known.access_state(database))
            return
        readers = known.readers_of(database, who_or_what)
        number, calls = known.calls_of(database, who_or_what)
    if as_json:
        told = {
            "readers": None if readers is None else [each.as_dict() for each in readers],
            "calls": number,
            "newest_calls": [each.as_dict() for each in calls],
        }
        click.echo(json.dumps(told, indent=2, default=str))
        return
    if readers is None and not number:
        err.print(printable(f"{who_or_what} is no recording here, and a reader who sees none"))
        ctx.exit(FAILED)
    for each in readers or ():
        out.print(printable(f"{each.name}: {each.why}"), markup=False)
    if readers == []:
        out.print("nobody but admins: nothing is known of who was there")
    if number:
        out.print(printable(f"{who_or_what} sees {number:,} calls, the newest:"), markup=False)
        for each in calls:
            reason = each.why or "an admin sees every call"
            out.print(printable(f"  {each.name}  {each.title or ''}: {reason}"), markup=False)


def _show(state: Any) -> None:
    policy = state.policy
    if not state.is_on:
        out.print("access is off: whoever may search sees every call")
        return
    out.print(
        f"access is on, by the policy {policy.policy}, externals"
        f" {'let in' if policy.admits_externals else 'left out'}; admins:"
        f" {', '.join(policy.admins) or 'none'}",
        markup=False,
    )
    out.print(f"roles that see every call: {', '.join(state.trusted_roles)}", markup=False)
