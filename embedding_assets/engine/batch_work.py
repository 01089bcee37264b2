"""What there is for the batch lane to do, and what it saves; cheap, as ticks ask it."""

from embedding_assets.engine.database import Connection, sql

DISCOUNT = 0.5  # a batch costs this share of the price
CHARACTERS_A_TOKEN = 4  # roughly, before anything is counted


def is_worth_a_batch(connection: Connection, from_tokens: int | None) -> bool:
    """Whether so much is due that it goes into a batch; not after a batch failed within a day."""
    if from_tokens is None or sql.last_batch_error(connection) is not None:
        return False
    characters: int = sql.due_characters(connection, limit=from_tokens * CHARACTERS_A_TOKEN)
    return characters >= from_tokens * CHARACTERS_A_TOKEN


def has_a_next_step(connection: Connection) -> bool:
    """Whether a batch is to be sent or looked at now."""
    return bool(sql.has_a_next_step(connection))
