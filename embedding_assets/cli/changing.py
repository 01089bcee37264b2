"""Commands that change how everything is embedded or read: the model, chunk sizes, the language."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from embedding_assets.cli.estimating import print_estimate
from embedding_assets.cli.finding import scores_table
from embedding_assets.cli.terminal import as_json_option, err, out, spinner
from embedding_assets.printing import printable
from embedding_assets.settings import Settings


@click.command(name="switch-model")
@click.option(
    "--evaluate",
    "questions",
    type=click.Path(path_type=Path),
    metavar="QUESTIONS",
    help="Do not switch: ask these questions of both models and show how well each answers.",
)
@click.option(
    "--batch", is_flag=True, help="By the provider's batches, at half the price; run it again."
)
def switch_model(questions: Path | None, batch: bool) -> None:
    """Embed everything with the model of the settings, then let search read that one.

    Search keeps reading the old model until the new one has every vector; interrupted, it
    continues where it stopped. With --evaluate, search stays with the old model, and the command
    without it switches without embedding anything again. With --batch, the same command again
    collects the answers, and switches when all are there.
    """
    from embedding_assets.engine.database import sql  # noqa: PLC0415
    from embedding_assets.engine.estimating import estimate_model  # noqa: PLC0415
    from embedding_assets.engine.in_flight import Lane  # noqa: PLC0415
    from embedding_assets.engine.switching import fill_model  # noqa: PLC0415
    from embedding_assets.engine.switching import switch_model as switch  # noqa: PLC0415
    from embedding_assets.engine.vectors import InsertBatch  # noqa: PLC0415
    from embedding_assets.search.evaluation import read_questions  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    settings = Settings()
    embedder = build_embedder(settings)
    asked = None if questions is None else read_questions(questions)
    with open_database(settings) as database:
        refused: list[str] = []
        print_estimate(embedder.model, estimate_model(database, embedder))
        waiting = None
        if batch or embedder.pace is not None:  # a local model has no batches
            waiting = batches_of(settings, database, sends=batch)
        if waiting:
            out.print(f"{waiting}; then run embedding-assets switch-model --batch again")
            return
        with spinner("embedding", "chunks") as progress:
            embedded = (switch if asked is None else fill_model)(
                database,
                embedder,
                InsertBatch(Lane.standard.insert_batch),
                progress,
                refused=lambda recording_id, reason: refused.append(f"{recording_id}: {reason}"),
            )
        for line in refused:
            err.print(printable(f"refused: {line}"), markup=False)
        with database.transaction() as connection:
            live = sql.live_model(connection).model
        out.print(f"{embedded:,} chunks embedded; search reads {live}")
        if refused:
            out.print(f"{len(refused)} chunks have no vector of {embedder.model}")
        if asked is not None:
            compare_models(settings, database, asked, live, embedder)


def batches_of(settings: Settings, database: Any, *, sends: bool) -> str | None:
    """Sends what is missing in batches, if told to; says how many are open, None if none is."""
    from embedding_assets.wiring import batch_lane  # noqa: PLC0415

    with batch_lane(settings, database) as lane:
        while sends and (planned := lane.plan_model()):
            out.print(planned)
        if sends or lane.open:
            for step in lane.advance():
                out.print(step)
        return f"batches of this model that are open: {lane.open}" if lane.open else None


def compare_models(
    settings: Settings, database: Any, asked: Sequence[Any], live: str, new: Any
) -> None:
    """Prints how well search answers with the live model, and as if the new one were live."""
    from embedding_assets.search.evaluation import evaluate  # noqa: PLC0415
    from embedding_assets.search.search import Mode  # noqa: PLC0415
    from embedding_assets.wiring import embedder_of  # noqa: PLC0415

    modes = (Mode.hybrid, Mode.semantic)
    scores: list[Any] = []
    models: list[str] = []
    with spinner("asking", "questions") as progress:
        for embedder in dict.fromkeys((live, new.model)):
            model = new if embedder == new.model else embedder_of(settings, live)
            found = evaluate(
                database,
                model,
                asked,
                modes=modes,
                as_if_live=embedder != live,
                progress=progress,
            )
            scores += found
            models += [embedder] * len(found)
    out.print(scores_table(scores, models))
    if new.model != live:
        out.print(f"to switch to {new.model}: embedding-assets switch-model")


@click.command()
@click.option("--estimate", is_flag=True, help="Only say how many, and what it may cost at most.")
@as_json_option
def rechunk(estimate: bool, as_json: bool) -> None:
    """Make recordings due that are cut by other sizes than CHUNK_* says now.

    A change of these settings applies to what is embedded from then on; this applies it to the
    rest. Search reads the old chunks until the new ones are published, recording by recording.
    """
    from embedding_assets.engine.embedders import cost_usd  # noqa: PLC0415
    from embedding_assets.engine.queue import enqueue_recordings  # noqa: PLC0415
    from embedding_assets.engine.rechunking import cut_otherwise  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder, chunk_settings  # noqa: PLC0415

    settings = Settings()
    price = build_embedder(settings).price_per_million_tokens
    with open_database(settings) as database:
        found = database.retrying(lambda c: cut_otherwise(c, chunk_settings(settings)))
        if not estimate:
            database.retrying(lambda c: enqueue_recordings(c, found.recording_ids))
    cost = cost_usd(found.tokens, price)
    report = {
        "recordings": len(found.recording_ids),
        "chunks": found.chunks,
        "tokens": found.tokens,
        "cost_usd": cost,
        "queued": not estimate,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    at_most = "cost unknown" if cost is None else f"${cost:.2f} at most"
    out.print(
        f"{len(found.recording_ids):,} recordings are cut otherwise, or do not say how:"
        f" {found.chunks:,} chunks, some {found.tokens:,} tokens, {at_most}"
    )
    if not estimate and found.recording_ids:
        out.print("they are due now: embedding-assets run, or the schedule embed_pending")


@click.command(name="switch-language")
def switch_language() -> None:
    """Let search read words in the language of SEARCH_LANGUAGE.

    Search reads the old language until the new one has every chunk; interrupted, it continues
    where it stopped.
    """
    from embedding_assets.search.languages import switch_language as switch  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415

    settings = Settings()
    with open_database(settings) as database, spinner("storing words", "chunks") as progress:
        chunks = switch(database, settings.search_language, progress)
    out.print(f"the words of {chunks:,} chunks stored; search reads {settings.search_language}")
