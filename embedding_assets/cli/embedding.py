"""Commands that embed, and that say what is embedded."""

import json
from typing import Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from embedding_assets.cli.terminal import FAILED, as_json_option, err, out
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.command()
@click.option(
    "--small-batch", is_flag=True, help="Insert vectors a few rows at a time (lane small_batch)."
)
@click.option(
    "--batch",
    is_flag=True,
    help="Put what is due into the provider's batches: half the price, up to a day.",
)
@as_json_option
@click.pass_context
def run(ctx: click.Context, small_batch: bool, batch: bool, as_json: bool) -> None:
    """Embed everything that is due, through Dagster, without a daemon.

    The run is one of the job embed_recordings and shows in the Dagster UI. What was embedded
    before is not embedded again. With --batch, run it again later, or let the schedule
    embed_in_batches collect the answers.
    """
    if batch:
        send_batches(Settings(), as_json=as_json)
        return
    summary = run_now(Settings(), small_batch=small_batch)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        print_summary(summary)
    ctx.exit(0 if summary.success else FAILED)


@click.command()
@click.argument("recording_ids", nargs=-1, metavar="[ID...]")
@click.option("--dead-letters", is_flag=True, help="All dead letters.")
@click.option(
    "--broken", is_flag=True, help="All that chunk_integrity found broken; --force is meant."
)
@click.option(
    "--force",
    is_flag=True,
    help="Also dead letters that used up their recoveries, and recordings that are completed.",
)
@click.option("--now", is_flag=True, help="Run through Dagster at once, and wait.")
@as_json_option
@click.pass_context
def retry(  # noqa: PLR0917  (click passes each option)
    ctx: click.Context,
    recording_ids: tuple[str, ...],
    dead_letters: bool,
    broken: bool,
    force: bool,
    now: bool,
    as_json: bool,
) -> None:
    """Make failed recordings due now, with all their attempts before them.

    Says which were queued; the others are completed, being worked on, unknown, or (without
    --force) wait for a person. With --force, whatever chunk_integrity finds wrong with a recording
    is mended when it is embedded again.
    """
    from embedding_assets.engine import mending, queue  # noqa: PLC0415
    from embedding_assets.engine.database import Connection  # noqa: PLC0415
    from embedding_assets.health import integrity  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    if not recording_ids and not dead_letters and not broken:
        raise click.UsageError("name recordings, or say --dead-letters or --broken")

    def make_due(connection: Connection) -> tuple[set[str], list[str]]:
        """The recordings that are meant, and those of them that are queued now."""
        wanted = {*recording_ids}
        if dead_letters:
            wanted.update(queue.dead_letter_ids(connection))
        if broken:
            wanted.update(integrity.found_broken(connection))
        mended = force or broken
        waiting = mending.prepare_mending(connection, sorted(wanted)) if mended else []
        made_due = queue.retry(connection, sorted(wanted), force=mended)
        return wanted, sorted({*waiting, *made_due})

    settings = Settings()
    with open_database(settings) as database:
        wanted, queued = database.retrying(make_due)
    summary = run_now(settings, small_batch=True) if now and queued else None
    if as_json:
        run_summary = None if summary is None else summary.as_dict()
        click.echo(json.dumps({"queued": queued, "run": run_summary}, indent=2))
    else:
        _print_retry(settings, queued, len(wanted - set(queued)), is_run=now)
        if summary is not None:
            print_summary(summary)
    ctx.exit(0 if summary is None or summary.success else FAILED)


def _print_retry(settings: Settings, queued: list[str], missed: int, *, is_run: bool) -> None:
    named = ", ".join(queued[:20]) + (" …" if len(queued) > 20 else "")
    out.print(
        printable(f"{len(queued)} queued: {named}" if queued else "nothing queued"), markup=False
    )
    if missed:
        out.print(f"{missed} not queued: see embedding-assets status, or add --force")
    if queued and not is_run:
        out.print(
            "they run at the schedule embed_pending's next tick"
            f" ({settings.embed_pending_cron}), or with: embedding-assets run"
        )


@click.command()
@as_json_option
def status(as_json: bool) -> None:
    """Show the queue: recordings by state, chunks, and what failed last."""
    from embedding_assets.engine.database import sql  # noqa: PLC0415
    from embedding_assets.engine.queue import queue_counts  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    with open_database(Settings()) as database, database.transaction() as connection:
        counts = queue_counts(connection)
        live = sql.live_model(connection)
        failures = [row._asdict() for row in sql.latest_failures(connection, limit=10)]
    if as_json:
        report = {
            "recordings": counts.recordings,
            "by_status": counts.by_status,
            "due": counts.due,
            "chunks": counts.chunks,
            "model": None if live is None else live.model,
            "latest_failures": failures,
        }
        click.echo(json.dumps(report, indent=2, default=str))
        return
    table = Table("state", "recordings")
    for state, recordings in counts.by_status.items():
        table.add_row(state, f"{recordings:,}")
    out.print(table)
    model = "none yet" if live is None else live.model
    out.print(f"{counts.due:,} due now, {counts.chunks:,} chunks, model {model}")
    for failure in failures:
        err.print(
            printable(
                f"{failure['recording_id']}: {failure['status']} after {failure['attempts']}"
                f" attempts: {failure['error_kind']}: {failure['last_error']}"
            ),
            markup=False,
        )


def send_batches(settings: Settings, *, as_json: bool) -> None:
    """Sends what is due in batches, collects what has ended, and says what is open."""
    from embedding_assets.cli.running import run_batches  # noqa: PLC0415
    from embedding_assets.engine.database import sql  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    stopped = run_batches(settings)
    with open_database(settings) as database:
        batches = database.retrying(lambda c: list(sql.open_batches(c)))
    if as_json:
        fields = ("batch_id", "model", "inputs", "provider_status", "created_at", "deadline")
        report = [{name: getattr(each, name) for name in fields} for each in batches]
        click.echo(json.dumps({"open": report, "stopped": stopped}, indent=2, default=str))
        return
    if stopped:
        err.print(printable(stopped), style="yellow", markup=False)
    for each in batches:
        out.print(f"batch {each.batch_id}: {each.inputs:,} texts, {each.provider_status or 'new'}")
    out.print(
        "embed_in_batches collects the answers of what is open; so does this command, again"
        if batches
        else "no batch is open; embedding-assets run publishes what they brought"
    )


def run_now(settings: Settings, *, small_batch: bool) -> Any:
    """Runs the worker in this process, with a bar of progress in a terminal; gives its summary."""
    from embedding_assets.cli.running import run_worker  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("embedding recordings", total=None)

        def show(done: int, to_do: int) -> None:
            bar.update(task, completed=done, total=to_do)

        lane = "small_batch" if small_batch else "standard"
        return run_worker(settings, lane=lane, progress=show if err.is_terminal else None)


def print_summary(summary: Any) -> None:
    """Tells in a line what a run did, and what it died of."""
    seconds = summary.duration_ms / 1000
    if not summary.processed and not summary.failed and summary.success and not summary.stopped:
        left = summary.pending_remaining
        out.print(
            f"nothing to embed now: {left} recordings wait after a failure or for a batch, another"
            " run has them, or somebody's open transaction has them locked"
            if left
            else "nothing to embed: every recording is up to date"
        )
    else:
        rate = summary.chunks_created / seconds if seconds else 0.0
        out.print(
            f"{summary.processed} recordings, {summary.chunks_created} chunks"
            f" ({summary.chunks_embedded} embedded) in {seconds:.1f} s: {rate:.0f} chunks/s;"
            f" {summary.failed} failed, {summary.pending_remaining} still to do"
        )
    if summary.stopped:
        err.print(printable(summary.stopped), style="yellow", markup=False)
    if summary.error:
        err.print(printable(summary.error), style="red", markup=False)
