"""Commands that show how well the system is, and that test who is told."""

import click

from embedding_assets.cli.terminal import (
    FAILED,
    MISCONFIGURED,
    as_json_option,
    complain,
    out,
)
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.settings import Settings

ALERT_TEST = "A test of this channel: nothing is wrong, alerts arrive here."


@click.command(
    epilog="Exit codes: 0 healthy; 1 warning; 2 critical, or a setting or an argument is wrong."
)
@click.option(
    "--watch",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="Look again so often, until Ctrl-C; with --json, a document a line.",
)
@as_json_option
@click.pass_context
def monitor(ctx: click.Context, watch: int | None, as_json: bool) -> None:
    """Show how well the system is: health, queue, activity, runs, dead letters, what to do.

    The exit code tells the health of the last look, so that this can be a probe. A database that
    cannot be read is critical.
    """
    from embedding_assets.health.monitor import monitor as show  # noqa: PLC0415

    ctx.exit(show(Settings(), every=watch, as_json=as_json))


@click.command(name="alert-test")
@click.pass_context
def alert_test(ctx: click.Context) -> None:
    """Send a test message to every channel of ALERT_URLS, and say which took it."""
    from embedding_assets.health.channels import ChannelError, channels  # noqa: PLC0415
    from embedding_assets.health.findings import Severity  # noqa: PLC0415

    settings = Settings()
    listed = channels(settings)
    if not listed.channels and not listed.problems:
        raise ConfigurationError(
            "ALERT_URLS is not set: give it Apprise's URLs, such as slack://… or mailto://…, with"
            " a space between them"
        )
    failed = False
    for channel in listed.channels:
        try:
            channel.send(f"{settings.alert_name}: test", ALERT_TEST, Severity.HEALTHY)
        except ChannelError as error:
            failed = True
            complain(error)
        else:
            out.print(f"{channel.name} took the message", markup=False)
    for problem in listed.problems:
        complain(ConfigurationError(problem))
    ctx.exit(MISCONFIGURED if listed.problems else FAILED if failed else 0)
