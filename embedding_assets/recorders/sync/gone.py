"""Withdraws calls that are gone at the recorder."""

from collections.abc import Sequence
from functools import partial

from embedding_assets.engine.database import Connection, Database
from embedding_assets.recorders.forgetting import delete_call
from embedding_assets.recorders.statements import sql

AT_ONCE = 1_000


def withdraw_gone_calls(database: Database, key_names: Sequence[str]) -> list[str]:
    """Deletes calls that each key which saw them sees no more, 1,000 at most; gives their ids.

    None is while one of these keys never listed all that it sees.

    Raises:
        EmbeddingAssetsError: the database refuses.
    """
    gone = database.retrying(
        lambda c: [
            row.recording_id for row in sql.gone_calls(c, key_names=key_names, limit=AT_ONCE)
        ]
    )
    return [each for each in gone if database.retrying(partial(_withdraw, recording_id=each))]


def _withdraw(connection: Connection, recording_id: str) -> bool:
    """Deletes a call, unless a key sees it again by now."""
    sightings = list(sql.hold_sightings(connection, recording_id=recording_id))
    if not sightings or any(row.gone_at is None for row in sightings):
        return False
    # Who saw it goes along: whoever sees or imports it again brings it back.
    delete_call(connection, recording_id)
    return True
