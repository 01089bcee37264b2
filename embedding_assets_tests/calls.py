"""Calls to embed, and the real client on the loopback server: what several rooms test with."""

from collections.abc import Callable, Sequence
from typing import Any

from embedding_assets.engine.chunking import ChunkSettings
from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.embedders.openai import OpenAIEmbedder, Retries
from embedding_assets.engine.outcome import Outcome
from embedding_assets_tests.loopback_api import LoopbackAPI

CHUNKING = ChunkSettings(target=40, overlap=8, maximum=60)
DIMENSIONS = 32


def embedder_of(api: LoopbackAPI, **settings: Any) -> OpenAIEmbedder:
    """The real client on the loopback server, quick to give up."""
    retries = Retries(attempts=2, first_wait=0.001, longest_wait=0.01)
    defaults = {"api_key": "k", "base_url": api.base_url, "dimensions": DIMENSIONS}
    return OpenAIEmbedder(**{**defaults, "retries": retries, "timeout": 10.0, **settings})


Embed = Callable[..., list[Outcome]]


def add_call(connection: Connection, recording_id: str, texts: Sequence[str]) -> None:
    """A call whose segments say these texts, by two speakers in turn."""
    connection.execute(
        "INSERT INTO fathom_calls (recording_id, title) VALUES (%s, 'A call')", [recording_id]
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO fathom_transcripts (recording_id, position, speaker_name, text)"
            " VALUES (%s, %s, %s, %s)",
            [(recording_id, n, ("Ann", "Bo")[n % 2], text) for n, text in enumerate(texts)],
        )


def talk(seed: str, turns: int) -> list[str]:
    """Turns that differ from each other and from those of other seeds."""
    return [f"In {seed} I say sentence number {n} about topic {n * 7 % 13}." for n in range(turns)]


def rows(database: Database, query: Any, parameters: Sequence[Any] = ()) -> list[Any]:
    """What a query gives."""
    with database.transaction() as connection:
        return connection.execute(query, parameters).fetchall()
