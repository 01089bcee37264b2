"""The commands that search, and that say how well search finds."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table
from rich.text import Text

from embedding_assets.cli.terminal import as_json_option, err, out, spinner
from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.printing import printable
from embedding_assets.settings import Settings

DATE = click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.argument("question")
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "semantic", "keyword"]),
    default="hybrid",
    show_default=True,
    help="By words and meaning, by meaning, or by words.",
)
@click.option("--recording", "recordings", metavar="ID", multiple=True, help="Only in these.")
@click.option("--speaker", "speakers", metavar="NAME", multiple=True, help="Only where one speaks.")
@click.option("--person", "people", metavar="EMAIL", multiple=True, help="Only calls with one.")
@click.option("--title", default="", metavar="WORDS", help="Only calls with these in their title.")
@click.option("--from", "since", type=DATE, metavar="DATE", help="Only calls from then on (UTC).")
@click.option("--until", type=DATE, metavar="DATE", help="Only calls before then (UTC).")
@click.option("--platform", "platforms", metavar="NAME", multiple=True, help="Only of these.")
@click.option("--owner", "owners", metavar="ID", multiple=True, help="Only calls of these users.")
@click.option("--not-recording", "not_recordings", metavar="ID", multiple=True, help="Not in it.")
@click.option("--not-speaker", "not_speakers", metavar="NAME", multiple=True, help="Not with them.")
@click.option("--not-person", "not_people", metavar="EMAIL", multiple=True, help="Not with them.")
@click.option("--not-title", default="", metavar="WORDS", help="Not so titled.")
@click.option("--not-platform", "not_platforms", metavar="NAME", multiple=True, help="Not of it.")
@click.option("--not-owner", "not_owners", metavar="ID", multiple=True, help="Not of these users.")
@click.option(
    "--per-recording",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="So many hits of one recording, while others fill the page.",
)
@click.option(
    "--context",
    type=click.IntRange(0, 20),
    default=0,
    metavar="N",
    help="Show hits whole, with N chunks before and after.",
)
@click.option("--reader", metavar="EMAIL", help="Find only what this reader may see.")
@as_json_option
def search(  # noqa: PLR0917  (click passes each option)
    question: str,
    limit: int,
    mode: str,
    per_recording: int,
    context: int,
    reader: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Search what was said: the best hits with call, speaker, time and excerpt.

    "Quoted phrases" must be there, -words must not. Where the model is away, words alone are
    searched, and a line says so. With - the question is read from standard input, so that the list
    of this machine's processes does not show it.
    """
    answer = find(
        Settings(),
        sys.stdin.readline() if question == "-" else question,
        limit=limit,
        mode=mode,
        per_recording=per_recording,
        context=context,
        filters=filters,
        reader=reader,
    )
    if answer.notice:
        err.print(Text(printable(answer.notice), style="yellow"))
    if as_json:
        click.echo(json.dumps([_hit_dict(hit) for hit in answer.hits], indent=2))
        return
    if not answer.hits:
        out.print("nothing found: no chunk has these words or is near, or nothing is embedded yet")
    for number, hit in enumerate(answer.hits, 1):
        print_hit(number, hit, whole=context > 0)


def find(
    settings: Settings,
    question: str,
    *,
    limit: int,
    mode: str = "hybrid",
    per_recording: int = 3,
    context: int = 0,
    filters: dict[str, Any] | None = None,
    reader: str | None = None,
) -> Any:
    """Searches with the model of the settings; gives an `Answer`."""
    from embedding_assets.search.access import access_is_on  # noqa: PLC0415
    from embedding_assets.search.search import Filters, Mode  # noqa: PLC0415
    from embedding_assets.search.search import search as ask  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    narrowed = {name: _in_utc(value) for name, value in (filters or {}).items()}
    # A model on this machine is never away: it is waited for while it loads.
    is_local = settings.embedding_provider == "local"
    if not is_local and mode != "keyword":
        import openai  # noqa: F401, PLC0415  (here, not within the seconds that its answer may take)
    with open_database(settings) as database:
        if reader is not None and not access_is_on(database):
            raise ConfigurationError(
                "access is off, so that a reader sees every call: run `embedding-assets access on`,"
                " or search without a reader"
            )
        return ask(
            database,
            build_embedder(settings),
            question,
            mode=Mode(mode),
            filters=Filters(**narrowed),
            limit=limit,
            per_recording=per_recording,
            context=context,
            seconds=None if is_local else settings.search_embedding_seconds,
            reader=reader,
        )


def _in_utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _hit_dict(hit: Any) -> dict[str, Any]:
    return {
        "recording_id": hit.recording_id,
        "chunk_index": hit.chunk_index,
        "title": hit.title,
        "recorded_at": None if hit.recorded_at is None else hit.recorded_at.isoformat(),
        "speakers": list(hit.speakers),
        "start_seconds": hit.start_seconds,
        "end_seconds": hit.end_seconds,
        "said_at": hit.said_at,
        "link": hit.link,
        "score": round(hit.score, 4),
        "similarity": None if hit.similarity is None else round(hit.similarity, 4),
        "word_score": None if hit.word_score is None else round(hit.word_score, 4),
        "matched_words": list(hit.matched_words),
        "marks": [list(mark) for mark in hit.marks],
        "text": hit.text,
        "before": list(hit.before),
        "after": list(hit.after),
    }


def print_hit(number: int, hit: Any, *, whole: bool = False) -> None:
    """Prints one hit: call, date, time, speakers, link, and what was said with its marks."""
    head = Text(f"{number}. ").append(printable(hit.title or "untitled"), style="bold")
    if hit.recorded_at is not None:
        head.append(f", {hit.recorded_at:%Y-%m-%d}")
    if hit.said_at is not None:
        head.append(f", at {timedelta(seconds=int(hit.said_at))}")
    out.print(head.append(f"  {printable(hit.recording_id)}", style="dim"))
    if hit.speakers:
        who = ", ".join(hit.speakers[:4]) + (" and others" if len(hit.speakers) > 4 else "")
        out.print(Text(f"   {printable(who)}"))
    if hit.link is not None:
        out.print(Text(f"   {printable(hit.link)}", style="dim"))
    text, marks = (hit.text, hit.marks) if whole else hit.excerpt()
    for before in hit.before:
        out.print(Text(_indented(before), style="dim"))
    said = Text(printable(text))
    for start, end in marks:
        said.stylize("bold", start, end)
    out.print(Text("\n").join(Text("   ") + line for line in said.split("\n")))
    for after in hit.after:
        out.print(Text(_indented(after), style="dim"))


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in printable(text).split("\n"))


@click.command()
@click.argument("questions", type=click.Path(path_type=Path))
@click.option("--within", is_flag=True, help="Ask each question in its recording only.")
@as_json_option
def evaluate(questions: Path, within: bool, as_json: bool) -> None:
    """Say how well search answers questions of yours, in each mode.

    QUESTIONS is a file of JSON lines: `question`, `recording_id`, and where the answer is: `turns`
    (first and last position of segments, a list of pairs) or `seconds`; without either, any part
    of the recording is right.
    """
    from embedding_assets.search.evaluation import evaluate as judge  # noqa: PLC0415
    from embedding_assets.search.evaluation import read_questions  # noqa: PLC0415
    from embedding_assets.server.connections import open_database  # noqa: PLC0415
    from embedding_assets.wiring import build_embedder  # noqa: PLC0415

    settings = Settings()
    asked = read_questions(questions)
    with open_database(settings) as database, spinner("asking", "questions") as progress:
        scores = judge(database, build_embedder(settings), asked, within=within, progress=progress)
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in scores], indent=2))
        return
    out.print(scores_table(scores))


def scores_table(scores: Sequence[Any], models: Sequence[str] = ()) -> Table:
    """A line for each mode; with the models that were asked, one for each, in a column before."""
    columns: list[Any] = ["mode", "questions", "hit@1", "hit@5", "MRR", "nDCG@10"]
    names = [[model] for model in models] or [[] for _ in scores]
    if models:
        columns.insert(0, Column("model", overflow="fold"))
    table = Table(*columns, caption="per cent, in brackets the 95 % confidence interval")
    for name, each in zip(names, scores, strict=True):
        figures = (each.hit_at_1, each.hit_at_5, each.mrr, each.ndcg_at_10)
        table.add_row(
            *name,
            each.mode,
            f"{each.questions}",
            *(f"{f.mean * 100:.0f} ({f.low * 100:.0f}-{f.high * 100:.0f})" for f in figures),
        )
    return table
