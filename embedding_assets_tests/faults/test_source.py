"""A worker, and a recorder that deletes, empties and changes its tables while it runs."""

import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from embedding_assets_tests.faults.conftest import BeginRow
from embedding_assets_tests.faults.promises import look, wait_until
from embedding_assets_tests.faults.scene import Scene
from embedding_assets_tests.faults.workers import ENDED

PLACE = "engine, recorder's tables"
TABLES = ("fathom_calls", "fathom_transcripts")
# How an id that is a text becomes one of another type.
TYPES = {
    "bigint": "('x' || left(md5(recording_id), 15))::bit(60)::bigint",
    "uuid": "md5(recording_id)::uuid",
    "text": "'a ' || recording_id",
}

Recorder = psycopg.Connection[Any]


def _change_ids(scene: Scene, type_: str) -> None:
    """Every call gets another id, of this type, as if nothing had been published yet."""
    with psycopg.connect(scene.url) as recorder:
        recorder.execute(
            "TRUNCATE embedding_queue, transcript_chunks, published_recordings CASCADE"
        )
        bound = recorder.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint"
            " WHERE contype IN ('f', 'c') AND (conrelid = ANY(%s::regclass[])"
            " OR confrelid = ANY(%s::regclass[]))",
            [list(TABLES), list(TABLES)],
        ).fetchall()
        for table, name in bound:
            recorder.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        for table in TABLES:
            recorder.execute(
                f"ALTER TABLE {table} ALTER recording_id TYPE {type_} USING {TYPES[type_]}"
            )


def _delete(recorder: Recorder, scene: Scene, chance: random.Random) -> None:
    """Half of the calls, with their transcripts, and later all of it comes back."""
    half = chance.sample(scene.corpus.ids, len(scene.corpus.ids) // 2)
    scene.reader.may_vanish.update(half)
    # The tables' names are these two.
    keep = "CREATE TEMP TABLE kept_{0} AS SELECT * FROM {0} WHERE recording_id::text = ANY(%s)"
    delete = "DELETE FROM {0} WHERE recording_id::text = ANY(%s)"
    with recorder.transaction():
        for table in reversed(TABLES):
            recorder.execute(keep.format(table), [half])
            recorder.execute(delete.format(table), [half])
    time.sleep(chance.uniform(0, 1))
    with recorder.transaction():
        for table in TABLES:
            recorder.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608


def _truncate(recorder: Recorder, scene: Scene, chance: random.Random) -> None:
    """All transcripts, which are written anew in the same transaction."""
    with recorder.transaction():
        recorder.execute("CREATE TEMP TABLE kept AS SELECT * FROM fathom_transcripts")
        recorder.execute("TRUNCATE fathom_transcripts")
        time.sleep(chance.uniform(0, 1))
        recorder.execute("INSERT INTO fathom_transcripts SELECT * FROM kept")


def _truncate_for_a_while(recorder: Recorder, scene: Scene, chance: random.Random) -> None:
    """All transcripts, which are written anew some time later."""
    scene.reader.may_vanish.update(scene.corpus.ids)
    recorder.execute("CREATE TEMP TABLE kept AS SELECT * FROM fathom_transcripts")
    recorder.execute("TRUNCATE fathom_transcripts")
    time.sleep(chance.uniform(0, 1))
    recorder.execute("INSERT INTO fathom_transcripts SELECT * FROM kept")


FAULTS: dict[str, Callable[[Recorder, Scene, random.Random], None]] = {
    "calls deleted, and back": _delete,
    "TRUNCATE and written anew, in one transaction": _truncate,
    "TRUNCATE, and written anew later": _truncate_for_a_while,
}


@pytest.mark.moments(some=1, all=3)
@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("name", FAULTS)
def test_what_the_recorder_does_to_its_tables_loses_nothing_and_is_not_paid_again(  # noqa: PLR0917
    scene: Scene, row: BeginRow, chance: random.Random, name: str, type_: str, moment: int
) -> None:
    scene.reader.may_vanish.update(scene.corpus.ids)
    _change_ids(scene, type_)
    scene.corpus.find()
    scene.api.latency = 0.1
    with (
        scene.work() as process,
        psycopg.connect(scene.url, autocommit=True) as recorder,
    ):
        wait_until(lambda: scene.api.stats.requests or not process.is_alive())
        time.sleep(chance.uniform(0, 0.3))
        FAULTS[name](recorder, scene, chance)
    scene.api.latency = 0.0
    assert scene.said == [ENDED]
    assert scene.charged() == {}
    scene.end()
    assert scene.paid_again() == {}
    assert len(look(scene.database, "SELECT recording_id FROM embedding_queue")) == len(
        scene.corpus.ids
    )
    row(PLACE, f"{name}; ids as {type_}").moment("whole at the end, nothing paid again")
