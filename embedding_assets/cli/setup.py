"""Commands that set this machine up, show it, and serve Dagster on it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click

from embedding_assets.cli.embedding import print_summary, run_now
from embedding_assets.cli.finding import find, print_hit
from embedding_assets.cli.terminal import (
    err,
    out,
    spinner,
)
from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError
from embedding_assets.settings import PROJECT_ROOT, Settings

ENDING_SECONDS = 15.0  # in which the search page ends by itself
DEMO_QUESTIONS = (
    "what does it cost per truck?",
    "why did the import fail?",
    "who owns the single sign-on rollout?",
)


@click.command()
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


@click.command()
def url() -> None:
    """Print the database's connection URL, for psql: psql "$(embedding-assets url)"."""
    from embedding_assets.server.connections import application_url  # noqa: PLC0415

    click.echo(application_url(Settings()))


@click.command()
def stop() -> None:
    """Stop the embedded Postgres; `init` and whatever needs it start it again."""
    from embedding_assets.server.connections import embedded_server  # noqa: PLC0415

    server = embedded_server(Settings())
    if server is None:
        raise ConfigurationError("DATABASE_URL names a server of yours: it is not ours to stop")
    out.print("stopped" if server.stop() else "was not running")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True)
@click.option(
    "--search-port", default=8080, show_default=True, help="Of the search page, on this machine."
)
def dev(host: str, port: int, search_port: int) -> None:
    """Serve the Dagster UI, its daemon and the search page on this home's data (make dev)."""
    from embedding_assets.server.installation import dagster_environment, install  # noqa: PLC0415

    settings = Settings()
    _require_free(host, port, "--port")
    _require_free("127.0.0.1", search_port, "--search-port")
    installed = install(settings)
    # From the home, where there is no .env that would win over this environment.
    os.chdir(installed.home)
    command = Path(sys.executable).with_name("dagster")
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    arguments = [str(command), "dev", "-w", workspace, "-h", host, "-p", str(port)]
    environment = dagster_environment(settings)
    environment.pop("DAGSTER_MODULE_NAME", None)  # of an activated .venv: beside -w it is an error
    search = [str(command.with_name("embedding-assets")), "serve", "--port", str(search_port)]
    sys.exit(_run_beside(arguments, search, environment))


def _require_free(host: str, port: int, option: str) -> None:
    """Raises ConfigurationError if another program listens there."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        raise ConfigurationError(
            f"port {port} is taken: choose another with `embedding-assets dev {option}`"
        ) from None


def _run_beside(command: list[str], beside: list[str], environment: dict[str, str]) -> int:
    """Runs a command, and another beside it for as long; gives the first one's exit code."""
    # A script's "&" lets it ignore Ctrl-C; Dagster would then ignore SIGTERM, too, in every run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # In sessions of their own: Ctrl-C reaches this process alone, and from it the two once each.
    main = subprocess.Popen(command, env=environment, start_new_session=True)
    other = subprocess.Popen(beside, env=environment, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: main.send_signal(number))
    try:
        return main.wait()
    finally:
        other.terminate()
        try:
            other.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            other.kill()


@click.command()
def demo() -> None:
    """Import the sample recordings, embed them through Dagster, search them (make demo)."""
    from embedding_assets.recorders.importing import import_recordings  # noqa: PLC0415
    from embedding_assets.recorders.samples import shipped  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.server.installation import install  # noqa: PLC0415

    settings = Settings()
    with err.status("starting Postgres and bringing its schema up to date"):
        installed = install(settings)
    with open_database(settings) as database, spinner("importing") as progress:
        report = import_recordings(database, [shipped()], progress)
    out.print(f"{report.imported} sample recordings imported, {report.unchanged} already there")
    summary = run_now(settings, small_batch=False)
    print_summary(summary)
    for question in DEMO_QUESTIONS:
        out.print(f"\n[bold]search:[/] {question}")
        for number, hit in enumerate(find(settings, question, limit=2).hits, 1):
            print_hit(number, hit)
    _print_score(settings)
    out.print("\n[bold]next[/]")
    out.print("  . .venv/bin/activate")
    out.print('  embedding-assets search "your question"')
    out.print("  embedding-assets import PATH && embedding-assets run")
    out.print("  embedding-assets serve  # search in the browser: http://127.0.0.1:8080")
    out.print("  make dev                # that, and the Dagster UI on http://127.0.0.1:3000")
    out.print(f"  embedding-assets stop   # ends the Postgres in {installed.home}")
    if not summary.success:
        raise EmbeddingAssetsError(summary.error or "the run failed")


def _print_score(settings: Settings) -> None:
    """Asks the questions about the samples; says how many find their answer first."""
    from embedding_assets.recorders.samples import questions  # noqa: PLC0415
    from embedding_assets.search.evaluation import evaluate, read_questions  # noqa: PLC0415
    from embedding_assets.search.search import Mode  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    asked = read_questions(questions())
    with open_database(settings) as database:
        (score,) = evaluate(database, build_embedder(settings), asked, modes=[Mode.hybrid])
    first, among_five = (
        round(share.mean * score.questions) for share in (score.hit_at_1, score.hit_at_5)
    )
    out.print(
        f"\nof {score.questions} questions about these calls, {first} find their answer as the"
        f" best hit, {among_five} among the best five"
    )
