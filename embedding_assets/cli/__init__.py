"""The `embedding-assets` command, put together of one file a group of commands."""

from typing import Any

import click

from embedding_assets.cli.access import access
from embedding_assets.cli.changing import rechunk, switch_language, switch_model
from embedding_assets.cli.embedding import retry, run, status
from embedding_assets.cli.estimating import estimate
from embedding_assets.cli.failures import add_debug_option, tell
from embedding_assets.cli.finding import evaluate, search
from embedding_assets.cli.forgetting import forget
from embedding_assets.cli.knowing import people
from embedding_assets.cli.recordings import import_, sample
from embedding_assets.cli.serving import mcp, serve, token
from embedding_assets.cli.setup import demo, dev, init, stop, url
from embedding_assets.cli.synchronising import sync
from embedding_assets.cli.watching import alert_test, monitor

EPILOG = (
    "Exit codes: 0 done; 1 something failed or was rejected; 2 a setting or an argument is wrong."
)


class _Commands(click.Group):
    """Lists commands in the order they are written, and turns errors into texts and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # nobody is to read a traceback unasked
            ctx.exit(tell(ctx, error))


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="embedding-assets")
def main() -> None:
    """Embeds call recordings into Postgres, and searches what was said.

    A first session: init, then import PATH, then run, then search "a question".
    """


COMMANDS: tuple[click.Command, ...] = (
    init,
    import_,
    sync,
    estimate,
    run,
    search,
    serve,
    mcp,
    token,
    evaluate,
    people,
    access,
    forget,
    retry,
    rechunk,
    status,
    monitor,
    switch_model,
    switch_language,
    url,
    stop,
    sample,
    dev,
    demo,
    alert_test,
)
"""In the order that --help lists them."""

for command in COMMANDS:
    main.add_command(command)
add_debug_option(main)
