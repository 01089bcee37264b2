"""The command that says what embedding would cost, before anything is spent."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from embedding_assets.cli.recordings import sources
from embedding_assets.cli.terminal import MISCONFIGURED, as_json_option, err, out, spinner
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("--due", is_flag=True, help="What is stored and not embedded yet (the default).")
@click.option("--model", help="Everything that is published, with this model of the provider.")
@as_json_option
@click.pass_context
def estimate(
    ctx: click.Context, paths: tuple[str, ...], due: bool, model: str | None, as_json: bool
) -> None:
    """Say what embedding would cost: tokens, money and time. Nothing is stored or sent.

    PATH are files and folders that `import` takes; nothing of them is imported. What has a vector
    already costs nothing, and is not counted.
    """
    from embedding_assets.engine.estimating import due_recordings, estimate_model  # noqa: PLC0415
    from embedding_assets.engine.estimating import estimate as estimate_of  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder, chunk_settings  # noqa: PLC0415

    if bool(paths) + due + (model is not None) > 1:
        err.print("error: give files, or --due, or --model: only one of them", style="red")
        ctx.exit(MISCONFIGURED)
    settings = Settings()
    if model is not None:
        settings = settings.model_copy(update={"embedding_model": model})
    embedder = build_embedder(settings)
    chunking = chunk_settings(settings)
    with open_database(settings) as database, spinner("reading") as progress:
        if model is not None:
            found = estimate_model(database, embedder)
        else:
            recordings = _in_files(paths, chunking) if paths else due_recordings(database, chunking)
            found = estimate_of(database, embedder, _counted(recordings, progress))
    if as_json:
        click.echo(json.dumps({"model": embedder.model, **asdict(found)}, indent=2))
        return
    print_estimate(embedder.model, found)


def print_estimate(model: str, found: Any) -> None:
    """Tells an estimate in a line."""
    cost = "price unknown" if found.cost_usd is None else f"${found.cost_usd:,.4f}"
    if found.batch_cost_usd:
        cost += f" (${found.batch_cost_usd:,.4f} in batches)"
    time = "time unknown: this model has embedded nothing yet"
    if found.seconds is not None:
        minutes = round(found.seconds / 60)
        time = f"{minutes:,} min at its last pace" if minutes else "less than a minute"
    out.print(
        printable(
            f"{model}: {found.recordings:,} recordings, {found.chunks:,} chunks, of which"
            f" {found.new_chunks:,} are new: some {found.tokens:,} tokens, {cost}; {time}"
        ),
        markup=False,
    )


def _counted(recordings: Iterator[Any], progress: Any) -> Iterator[Any]:
    for number, each in enumerate(recordings, 1):
        yield each
        progress(number)


def _in_files(paths: tuple[str, ...], chunking: Any) -> Iterator[Any]:
    from embedding_assets.engine.chunking import chunk  # noqa: PLC0415
    from embedding_assets.recorders import Notice, Rejection, read  # noqa: PLC0415

    for item in read(sources(paths)):
        if isinstance(item, Notice):
            continue
        if isinstance(item, Rejection):
            err.print(printable(f"not counted: {item}"), markup=False)
        else:
            yield item.recording_id, tuple(chunk(item.segments, chunking))
