"""What there is for the batch lane to do, and what it saves; cheap, as ticks ask it."""

from embedding_assets.engine.database import Connection, sql

DISCOUNT = 0.5  # a batch costs this share of the price
MINUTES_OF_A_BATCH = 24 * 60
CHARACTERS_A_TOKEN = 4  # roughly, before anything is counted


def is_worth_a_batch(connection: Connection, from_tokens: int | None) -> bool:
    """Whether so much is due that it goes into a batch.

    That is `from_tokens`, 0 for never. None: what the account's limit, where its server has told
    one, lets through in more time than a batch takes. Not where the server has no batches, nor
    within a day after one failed.
    """
    account = sql.live_account(connection)
    if account is not None and account.lacks_batches:
        return False
    if from_tokens is None and account is not None and account.tokens_per_minute is not None:
        from_tokens = account.tokens_per_minute * MINUTES_OF_A_BATCH
    if not from_tokens or sql.last_batch_error(connection) is not None:
        return False
    characters: int = sql.due_characters(connection, limit=from_tokens * CHARACTERS_A_TOKEN)
    return characters >= from_tokens * CHARACTERS_A_TOKEN


def has_a_next_step(connection: Connection) -> bool:
    """Whether a batch is to be sent or looked at now."""
    return bool(sql.has_a_next_step(connection))
