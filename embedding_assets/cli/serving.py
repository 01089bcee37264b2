"""Commands that serve search to browsers, programs and agents, and say who may use it."""

import contextlib
import json
import sys

import click
from rich.table import Table

from embedding_assets.cli.terminal import FAILED, as_json_option, err, out
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Elsewhere: with tokens only.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True)
def serve(host: str, port: int) -> None:
    """Serve the search page, the JSON API and MCP.

    The page is at /, the API is described at /api/openapi.json, agents ask at /mcp, Fathom's
    webhooks come to /webhooks/fathom/NAME, and monitoring reads /healthz, /readyz and /metrics.
    """
    import logging  # noqa: PLC0415

    from embedding_assets.web.app import prepare  # noqa: PLC0415

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("embedding_assets.web").setLevel(logging.INFO)
    server = prepare(Settings(), host, port, lambda place: out.print(f"search: {place}"))
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is ended
        server.run()


@click.command()
@click.option("--reader", metavar="EMAIL", help="Find only what this reader may see.")
def mcp(reader: str | None) -> None:
    """Answer an agent on this machine over standard input and output (MCP).

    Put this command into the agent's configuration: it is not for a terminal.
    """
    from embedding_assets.web.local import answer_agent  # noqa: PLC0415

    if sys.stdin.isatty():
        err.print("this waits for an agent's messages: see docs/serving.md; Ctrl-C ends it")
    answer_agent(Settings(), reader)


@click.group()
def token() -> None:
    """Who may ask over the network. As the role that owns the tables."""


@token.command()
@click.argument("name")
@click.option(
    "--reader", required=True, metavar="EMAIL", help="Whose calls it sees: an address, a user's id."
)
@click.option("--may-import", is_flag=True, help="It may bring calls in, too.")
def add(name: str, reader: str, may_import: bool) -> None:
    """Make a token and print it, this once. NAME says who or what has it, such as ann-laptop."""
    from embedding_assets.search.access import access_is_on  # noqa: PLC0415
    from embedding_assets.search.tokens import add_token, has_tokens  # noqa: PLC0415
    from embedding_assets.server.connections import open_owner_database  # noqa: PLC0415

    with open_owner_database(Settings()) as database:
        is_first = not has_tokens(database)
        made = add_token(database, name, reader, may_import=may_import)
        err.print("keep it: it is shown this once")
        if is_first:
            err.print("from now on nobody is served without a token, on this machine neither")
        if not access_is_on(database):
            err.print(
                "access is off: this token sees every call, until `embedding-assets access on`",
                style="yellow",
            )
    click.echo(made)


@token.command(name="list")
@as_json_option
def list_(as_json: bool) -> None:
    """List the tokens; what they are is not kept, only their hashes."""
    from embedding_assets.search.tokens import has_tokens, tokens  # noqa: PLC0415
    from embedding_assets.server.connections import open_owner_database  # noqa: PLC0415

    with open_owner_database(Settings()) as database:
        found, were_some = tokens(database), has_tokens(database)
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=2, default=str))
        return
    if not found and were_some:
        out.print("all tokens are revoked: nobody is served until `embedding-assets token add`")
        return
    if not found:
        out.print("no tokens: whoever reaches `embedding-assets serve` on this machine may ask")
        return
    table = Table("name", "reader", "imports", "made")
    for each in found:
        made = "" if each.created_at is None else f"{each.created_at:%Y-%m-%d}"
        table.add_row(each.name, printable(each.reader), "yes" if each.may_import else "no", made)
    out.print(table)


@token.command()
@click.argument("name")
@click.pass_context
def revoke(ctx: click.Context, name: str) -> None:
    """Make a token worth nothing, from now on."""
    from embedding_assets.search.tokens import revoke_token  # noqa: PLC0415
    from embedding_assets.server.connections import open_owner_database  # noqa: PLC0415

    with open_owner_database(Settings()) as database:
        if revoke_token(database, name):
            out.print(f"revoked {printable(name)}", markup=False)
            return
    err.print(f"there is no token {printable(name)}", markup=False)
    ctx.exit(FAILED)
