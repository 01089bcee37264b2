"""The command that searches."""

import json
from datetime import timedelta
from typing import Any

import click
from rich.markup import escape

from embedding_assets.cli.terminal import (
    as_json_option,
    out,
)
from embedding_assets.settings import Settings


@click.command()
@click.argument("question")
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--recording", metavar="ID", help="Search in one recording only.")
@as_json_option
def search(question: str, limit: int, recording: str | None, as_json: bool) -> None:
    """Search what was said, by meaning: the best hits with call, speaker, time and excerpt."""
    hits = find_hits(Settings(), question, limit, recording)
    if as_json:
        click.echo(json.dumps([_hit_dict(hit) for hit in hits], indent=2))
        return
    if not hits:
        out.print("nothing found: nothing is embedded yet, or no such recording")
    for number, hit in enumerate(hits, 1):
        print_hit(number, hit, question)


def find_hits(settings: Settings, question: str, limit: int, recording: str | None) -> Any:
    """Searches with the model of the settings."""
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


def print_hit(number: int, hit: Any, question: str) -> None:
    """Prints one hit: call, date, time, speakers and what was said."""
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
