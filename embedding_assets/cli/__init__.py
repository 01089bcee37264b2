"""The `embedding-assets` command."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import click
import pydantic
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError
from embedding_assets.settings import PROJECT_ROOT, Settings

FAILED = 1
MISCONFIGURED = 2

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

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
        except pydantic.ValidationError as error:
            for problem in error.errors():
                name = ".".join(str(part) for part in problem["loc"]).upper()
                err.print(f"[red]{name}[/]: {problem['msg']}")
            ctx.exit(MISCONFIGURED)
        except ConfigurationError as error:
            _complain(error)
            ctx.exit(MISCONFIGURED)
        except EmbeddingAssetsError as error:
            _complain(error)
            ctx.exit(FAILED)


def _complain(error: Exception) -> None:
    err.print("error:", style="red", end=" ")
    err.print(str(error), markup=False)


def _as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="embedding-assets")
def main() -> None:
    """Embeds call recordings into Postgres, and searches what was said.

    A first session: init, then import PATH, then run, then search "a question".
    """


@main.command()
def init() -> None:
    """Prepare this machine: server, databases, schema, .env.

    Starts the embedded Postgres unless DATABASE_URL names another server, brings the schema up to
    date and writes what the `dagster` commands need into .env. Run again, it changes nothing.
    """
    from embedding_assets.server.installation import install  # noqa: PLC0415

    with err.status("preparing the database"):
        installed = install(Settings())
    server = "embedded Postgres" if installed.embedded else "Postgres of DATABASE_URL"
    out.print(f"{server}: {'started' if installed.started else 'running'}")
    out.print(f"schema: {'migrated' if installed.migrated else 'up to date'}")
    out.print(f"everything written at run time is in {installed.home}")


@main.command(name="import")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@_as_json
@click.pass_context
def import_(ctx: click.Context, paths: tuple[str, ...], as_json: bool) -> None:
    """Import recordings from files, folders or standard input (-).

    Reads JSON lines (.jsonl, .jsonl.gz), Fathom API JSON, WebVTT and SRT. Importing a recording
    again corrects what differs and queues it only if something was changed; what is rejected is
    named with its place and the reason, and everything else is imported.
    """
    from embedding_assets.recorders.importing import import_recordings  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    sources = [cast("Path | Literal['-']", p if p == "-" else Path(p)) for p in paths]
    with open_database(Settings()) as database, _spinner("importing") as progress:
        report = import_recordings(database, sources, progress)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for notice in report.notices:
            err.print(f"[yellow]note:[/] {notice.place}: {notice.reason}")
        for rejection in report.rejected:
            err.print("rejected:", style="red", end=" ")
            err.print(str(rejection), markup=False)
        out.print(
            f"{report.imported} imported, {report.unchanged} unchanged,"
            f" {len(report.rejected)} rejected"
        )
    ctx.exit(FAILED if report.rejected else 0)


@main.command()
@click.option(
    "--small-batch", is_flag=True, help="Insert vectors a few rows at a time (lane small_batch)."
)
@_as_json
@click.pass_context
def run(ctx: click.Context, small_batch: bool, as_json: bool) -> None:
    """Embed everything that is due, through Dagster, without a daemon.

    The run is one of the job embed_recordings and shows in the Dagster UI. What was embedded
    before is not embedded again.
    """
    summary = _run(Settings(), small_batch=small_batch)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        _print_summary(summary)
    ctx.exit(0 if summary.success else FAILED)


@main.command()
@click.argument("question")
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--recording", metavar="ID", help="Search in one recording only.")
@_as_json
def search(question: str, limit: int, recording: str | None, as_json: bool) -> None:
    """Search what was said, by meaning: the best hits with call, speaker, time and excerpt."""
    hits = _search(Settings(), question, limit, recording)
    if as_json:
        click.echo(json.dumps([_hit_dict(hit) for hit in hits], indent=2))
        return
    if not hits:
        out.print("nothing found: nothing is embedded yet, or no such recording")
    for number, hit in enumerate(hits, 1):
        _print_hit(number, hit, question)


@main.command()
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
@_as_json
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
    summary = _run(settings, small_batch=True) if now and queued else None
    if as_json:
        run_summary = None if summary is None else summary.as_dict()
        click.echo(json.dumps({"queued": queued, "run": run_summary}, indent=2))
    else:
        _print_retry(settings, queued, len(wanted - set(queued)), is_run=now)
        if summary is not None:
            _print_summary(summary)
    ctx.exit(0 if summary is None or summary.success else FAILED)


def _print_retry(settings: Settings, queued: list[str], missed: int, *, is_run: bool) -> None:
    named = ", ".join(queued[:20]) + (" …" if len(queued) > 20 else "")
    out.print(f"{len(queued)} queued: {named}" if queued else "nothing queued", markup=False)
    if missed:
        out.print(f"{missed} not queued: see embedding-assets status, or add --force")
    if queued and not is_run:
        out.print(
            "they run at the schedule embed_pending's next tick"
            f" ({settings.embed_pending_cron}), or with: embedding-assets run"
        )


@main.command()
@_as_json
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
            f"{failure['recording_id']}: {failure['status']} after {failure['attempts']} attempts:"
            f" {failure['error_kind']}: {failure['last_error']}",
            markup=False,
        )


@main.command(
    epilog="Exit codes: 0 healthy; 1 warning; 2 critical, or a setting or an argument is wrong."
)
@click.option(
    "--watch",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="Look again so often, until Ctrl-C; with --json, a document a line.",
)
@_as_json
@click.pass_context
def monitor(ctx: click.Context, watch: int | None, as_json: bool) -> None:
    """Show how well the system is: health, queue, activity, runs, dead letters, what to do.

    The exit code tells the health of the last look, so that this can be a probe. A database that
    cannot be read is critical.
    """
    from embedding_assets.health.monitor import monitor as show  # noqa: PLC0415

    ctx.exit(show(Settings(), every=watch, as_json=as_json))


@main.command(name="switch-model")
def switch_model() -> None:
    """Embed everything with the model of the settings, then let search read that one.

    Search keeps reading the old model until the new one has every vector; interrupted, it
    continues where it stopped.
    """
    from embedding_assets.engine.embedding import Lane  # noqa: PLC0415
    from embedding_assets.engine.switching import switch_model as switch  # noqa: PLC0415
    from embedding_assets.engine.vectors import InsertBatch  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    settings = Settings()
    embedder = build_embedder(settings)
    with open_database(settings) as database, _spinner("embedding", "chunks") as progress:
        batch = InsertBatch(Lane.standard.insert_batch)
        refused: list[str] = []
        embedded = switch(
            database,
            embedder,
            batch,
            progress,
            refused=lambda recording_id, reason: refused.append(f"{recording_id}: {reason}"),
        )
    for line in refused:
        err.print(f"refused: {line}", markup=False)
    out.print(f"{embedded:,} chunks embedded; search reads {embedder.model}")
    if refused:
        out.print(f"{len(refused)} chunks have no vector of it: search does not find them")


@main.command()
def url() -> None:
    """Print the database's connection URL, for psql: psql "$(embedding-assets url)"."""
    from embedding_assets.server.connections import application_url  # noqa: PLC0415

    click.echo(application_url(Settings()))


@main.command()
def stop() -> None:
    """Stop the embedded Postgres; `init` and whatever needs it start it again."""
    from embedding_assets.server.connections import embedded_server  # noqa: PLC0415

    server = embedded_server(Settings())
    if server is None:
        raise ConfigurationError("DATABASE_URL names a server of yours: it is not ours to stop")
    out.print("stopped" if server.stop() else "was not running")


@main.command()
@click.option("--recordings", type=click.IntRange(0), default=100, show_default=True)
@click.option("--long", type=click.IntRange(0), default=0, help="How many are over three hours.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same recordings.")
def sample(recordings: int, long: int, seed: int) -> None:
    """Write made-up recordings as JSON lines to standard output, for scale tests.

    Example: embedding-assets sample --recordings 1000 | embedding-assets import -
    """
    from embedding_assets.recorders.samples.generate import generate, write_jsonl  # noqa: PLC0415

    write_jsonl(generate(recordings, long, seed), sys.stdout)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True)
def dev(host: str, port: int) -> None:
    """Serve the Dagster UI and its daemon on this home's data (make dev)."""
    from embedding_assets.server.installation import dagster_environment, install  # noqa: PLC0415

    settings = Settings()
    installed = install(settings)
    # From the home, where there is no .env that would win over this environment.
    os.chdir(installed.home)
    command = Path(sys.executable).with_name("dagster")
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    arguments = [str(command), "dev", "-w", workspace, "-h", host, "-p", str(port)]
    environment = dagster_environment(settings)
    environment.pop("DAGSTER_MODULE_NAME", None)  # of an activated .venv: beside -w it is an error
    os.execve(command, arguments, environment)  # noqa: S606  (no shell wanted)


@main.command()
def demo() -> None:
    """Import the sample recordings, embed them through Dagster, search them (make demo)."""
    from embedding_assets.recorders.importing import import_recordings  # noqa: PLC0415
    from embedding_assets.recorders.samples import shipped  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.server.installation import install  # noqa: PLC0415

    settings = Settings()
    with err.status("starting Postgres and bringing its schema up to date"):
        installed = install(settings)
    with open_database(settings) as database, _spinner("importing") as progress:
        report = import_recordings(database, [shipped()], progress)
    out.print(f"{report.imported} sample recordings imported, {report.unchanged} already there")
    summary = _run(settings, small_batch=False)
    _print_summary(summary)
    for question in DEMO_QUESTIONS:
        out.print(f"\n[bold]search:[/] {question}")
        for number, hit in enumerate(_search(settings, question, 2, None), 1):
            _print_hit(number, hit, question)
    out.print("\n[bold]next[/]")
    out.print("  . .venv/bin/activate")
    out.print('  embedding-assets search "your question"')
    out.print("  embedding-assets import PATH && embedding-assets run")
    out.print("  make dev        # the Dagster UI on http://127.0.0.1:3000")
    out.print(f"  embedding-assets stop   # ends the Postgres in {installed.home}")
    if not summary.success:
        raise EmbeddingAssetsError(summary.error or "the run failed")


@main.command(name="alert-test")
@click.pass_context
def alert_test(ctx: click.Context) -> None:
    """Send a test message to every channel of ALERT_URLS, and say which took it."""
    from embedding_assets.health.channels import ChannelError, channels  # noqa: PLC0415
    from embedding_assets.health.judging import Severity  # noqa: PLC0415

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
            _complain(error)
        else:
            out.print(f"{channel.name} took the message", markup=False)
    for problem in listed.problems:
        _complain(ConfigurationError(problem))
    ctx.exit(MISCONFIGURED if listed.problems else FAILED if failed else 0)


ALERT_TEST = "A test of this channel: nothing is wrong, alerts arrive here."

DEMO_QUESTIONS = (
    "what does it cost per truck?",
    "why did the import fail?",
    "who owns the single sign-on rollout?",
)


def _run(settings: Settings, *, small_batch: bool) -> Any:
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


def _print_summary(summary: Any) -> None:
    seconds = summary.duration_ms / 1000
    if not summary.processed and not summary.failed and summary.success:
        left = summary.pending_remaining
        out.print(
            f"nothing to embed now: {left} recordings wait after a failure, or are in other hands"
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
    if summary.error:
        err.print(summary.error, style="red", markup=False)


def _search(settings: Settings, question: str, limit: int, recording: str | None) -> Any:
    from embedding_assets.search.search import search as find  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    with open_database(settings) as database:
        return find(
            database, build_embedder(settings), question, limit=limit, recording_id=recording
        )


def _hit_dict(hit: Any) -> dict[str, Any]:
    return {
        "recording_id": hit.recording_id,
        "chunk_index": hit.chunk_index,
        "title": hit.title,
        "recorded_at": None if hit.recorded_at is None else hit.recorded_at.isoformat(),
        "speakers": list(hit.speakers),
        "start_seconds": hit.start_seconds,
        "end_seconds": hit.end_seconds,
        "similarity": round(hit.similarity, 4),
        "text": hit.text,
    }


def _print_hit(number: int, hit: Any, question: str) -> None:
    title = escape(hit.title or "untitled")
    when = "" if hit.recorded_at is None else f", {hit.recorded_at:%Y-%m-%d}"
    at = "" if hit.start_seconds is None else f", at {_clock(hit.start_seconds)}"
    who = ", ".join(hit.speakers[:4]) + (" and others" if len(hit.speakers) > 4 else "")
    out.print(f"{number}. [bold]{title}[/]{when}{at}  [dim]{escape(hit.recording_id)}[/]")
    if who:
        out.print(f"   {escape(who)}")
    out.print(f"   {hit.excerpt(question)}", style="dim", markup=False)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


@contextmanager
def _spinner(what: str, things: str = "recordings") -> Iterator[Callable[[int], None]]:
    """Counts up in the terminal while something takes its time."""
    with err.status(what) as status:
        yield lambda count: status.update(f"{what}: {count:,} {things}")
