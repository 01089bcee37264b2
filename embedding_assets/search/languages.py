"""The language whose words search reads: changed by filling another beside it, then switching."""

import time
from collections.abc import Callable

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.search.frequencies import count_words
from embedding_assets.search.statements import sql

SETTLE_SECONDS = 600.0
POLL_SECONDS = 0.1
CHUNKS_AT_ONCE = 1_000  # whose words are stored in one transaction: some 0.2 s


def live_language(connection: Connection) -> str:
    """The text search configuration that search reads."""
    name: str = sql.live_language(connection)
    return name


def switch_language(
    database: Database, name: str, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Stores every chunk's words in another language, lets search read them, drops the old ones.

    Search reads the old language until the new one is whole; what is published meanwhile is stored
    in both. Interrupted, it continues where it stopped. Gives the number of chunks.

    Raises:
        ConfigurationError: the server has no such configuration, or the role owns no tables.
        TransientError: an older transaction stayed open for too long.
    """
    if not database.retrying(lambda c: sql.is_language(c, name=name)):
        raise ConfigurationError(
            f"this server has no text search configuration {name!r}: set SEARCH_LANGUAGE to"
            " one that psql lists at \\dF, or to simple for mixed languages"
        )
    database.retrying(lambda c: sql.add_language(c, name=name))
    _wait_for_publications(database)
    chunks = 0
    while True:
        batch = database.retrying(lambda c: sql.fill_words(c, language=name, limit=CHUNKS_AT_ONCE))
        chunks += int(batch.filled)
        progress(chunks)
        if not batch.found:
            break
    count_words(database)
    old = database.retrying(lambda c: _switch(c, name))
    if old != name:
        database.retrying(lambda c: sql.drop_language(c, name=old))
    return chunks


def _wait_for_publications(database: Database) -> None:
    """Waits for the transactions that began before the language was there: they do not write it.

    Raises:
        TransientError: one of them stayed open for too long.
    """
    before = database.retrying(sql.next_transaction)
    deadline = time.monotonic() + SETTLE_SECONDS
    while not database.retrying(lambda c: sql.have_ended(c, before=before)):
        if time.monotonic() > deadline:
            raise TransientError(
                f"a transaction on this database has been open for {SETTLE_SECONDS:.0f} seconds;"
                " end it, and run this again: it continues where it stopped"
            )
        time.sleep(POLL_SECONDS)


def _switch(connection: Connection, name: str) -> str:
    old: str = live_language(connection)
    sql.retire_language(connection)
    sql.make_language_live(connection, language=name)
    return old
