"""What a command that failed says, in one line, and its exit code."""

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

import click
import pydantic

from embedding_assets.cli.terminal import FAILED, MISCONFIGURED, complain, err
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError

_HELP = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.ENOENT: "name one that is there, or can be made",
    errno.EACCES: "this user may not: give it the right, or set EMBEDDING_ASSETS_HOME",
    errno.EPERM: "this user may not: give it the right, or set EMBEDDING_ASSETS_HOME",
    errno.EROFS: "it is mounted read-only: set EMBEDDING_ASSETS_HOME to where one may write",
    errno.EMFILE: "too many files are open: raise ulimit -n",
}


def debug_option() -> click.Option:
    """--debug, which every command takes; `tell` looks for it."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[__name__] = ctx.meta.get(__name__, False) or value

    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Show an error with its traceback, which may quote data.",
    )


def add_debug_option(command: click.Command) -> None:
    """Lets the command take --debug, and those below it."""
    command.params.append(debug_option())
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        add_debug_option(each)


def tell(ctx: click.Context, error: Exception) -> int:
    """Says what failed and what helps; the rest only with --debug. Gives the exit code."""
    if ctx.meta.get(__name__):
        click.echo("".join(traceback.format_exception(error)), err=True)
    if isinstance(error, pydantic.ValidationError):
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]).upper()
            err.print(f"[red]{name}[/]: {problem['msg']}")
        return MISCONFIGURED
    if isinstance(error, EmbeddingAssetsError):
        complain(error)
        return MISCONFIGURED if isinstance(error, ConfigurationError) else FAILED
    complain(_plain(error))
    return FAILED


def _plain(error: Exception) -> str:
    """What happened, without what an exception may quote."""
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{place}; {_HELP.get(error.errno or 0, 'see --debug')}"
    for cause in _causes(error):
        database = getattr(cause, "orig", cause)  # SQLAlchemy's errors have the driver's
        if isinstance(database, Exception) and type(database).__module__.startswith("psycopg"):
            return _storage(database)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"{type(error).__name__}{where}: not foreseen, so please report it with what --debug shows"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _storage(error: Exception) -> str:
    state = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    ours = type(error).__module__.startswith("psycopg.")  # Dagster's is psycopg2
    setting = "DATABASE_URL" if ours else "DAGSTER_PG_URL"
    what = "the database" if ours else "Dagster's storage"
    told = f"SQLSTATE {state}" if state else "no connection"
    return f"{what} failed ({told}): see that the server of {setting} is there and takes writes"
