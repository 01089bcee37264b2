"""The command that forgets calls or a person."""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from embedding_assets.cli.terminal import as_json_option, out
from embedding_assets.printing import printable
from embedding_assets.settings import Settings

MOST_SHOWN = 20


@click.command()
@click.option("--recording", "recordings", metavar="ID", multiple=True, help="These calls.")
@click.option(
    "--person", metavar="EMAIL", help="The calls somebody recorded, was invited to, spoke in."
)
@click.option("--words-only", is_flag=True, help="Only that person's words and names in them.")
@click.option(
    "--before",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    metavar="DATE",
    help="Calls of before this day (UTC).",
)
@click.option(
    "--rewrite",
    is_flag=True,
    help="Write the tables of texts anew, so that nothing is left in their free space; searches and"
    " workers wait meanwhile.",
)
@click.option("--dry-run", is_flag=True, help="Only say which calls that concerns.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def forget(  # noqa: PLR0917  (click passes each option)
    recordings: tuple[str, ...],
    person: str | None,
    words_only: bool,
    before: datetime | None,
    rewrite: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete calls, or a person, everywhere, at once, and write a proof of it.

    The call and its transcript, chunks, vectors, who was there, what attempts said of it, files at
    the provider of batches, and what Dagster keeps. It does not come in again. As the role that
    owns the tables.
    """
    from embedding_assets import forgetting  # noqa: PLC0415
    from embedding_assets.server.connections import open_owner_database  # noqa: PLC0415
    from embedding_assets.wiring import batch_file_deleter  # noqa: PLC0415

    settings = Settings()
    request = forgetting.Request(
        recordings, person, words_only, None if before is None else before.replace(tzinfo=UTC)
    )
    with open_owner_database(settings) as database:
        proof = forgetting.plan(database, request)
        # A person may be in no call any more, and is forgotten all the same.
        if dry_run or not (proof.recording_ids or person):
            _show(proof, as_json=as_json)
            return
        if not yes:
            number = len(proof.recording_ids)
            what = "this person's words in them" if words_only else "everything of them"
            click.confirm(f"{number} calls, and {what} will be gone for good. Go on?", abort=True)
        with _dagster(settings) as elsewhere, batch_file_deleter(settings) as delete_file:
            proof = forgetting.forget(
                database, request, rewrite=rewrite, delete_file=delete_file, elsewhere=elsewhere
            )
    _show(proof, as_json=as_json)


@contextlib.contextmanager
def _dagster(settings: Settings) -> Iterator[list[Any]]:
    from embedding_assets.server.installation import dagster_environment  # noqa: PLC0415

    os.environ.update(dagster_environment(settings))
    from embedding_assets.cli.running import open_instance  # noqa: PLC0415  (a second of imports)
    from embedding_assets.defs.forgetting import forget_events  # noqa: PLC0415

    with open_instance(settings) as instance:
        yield [partial(forget_events, instance)]


def _show(proof: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(proof.as_dict(), indent=2))
        return
    shown = ", ".join(proof.recording_ids[:MOST_SHOWN]) or "none is concerned"
    more = len(proof.recording_ids) - MOST_SHOWN
    rest = f" and {more:,} more" if more > 0 else ""
    out.print(printable(f"calls: {shown}{rest}"), markup=False)
    for name, count in sorted(proof.counts.items()):
        if count:
            out.print(f"  {name}: {count:,}", markup=False)
    if proof.number is None:
        out.print("nothing was deleted")
        return
    for each in proof.not_reached:
        out.print(printable(f"not reached: {each}"), markup=False)
    out.print(f"proof {proof.number} is in the table forgettings")
