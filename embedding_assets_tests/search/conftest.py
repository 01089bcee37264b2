from collections.abc import Callable, Sequence

import pytest

from embedding_assets.engine.database import Database
from embedding_assets.search.frequencies import count_words
from embedding_assets_tests.calls import Embed, add_call

Publish = Callable[..., None]


@pytest.fixture
def publish(database: Database, embed: Embed) -> Publish:
    """Publishes calls that say these texts; what is known of each goes into its row."""

    def publish(calls: dict[str, Sequence[str]], **columns: object) -> None:
        with database.transaction() as connection:
            for recording_id, texts in calls.items():
                add_call(connection, recording_id, texts)
            for name, value in columns.items():
                connection.execute(
                    f"UPDATE fathom_calls SET {name} = %s WHERE recording_id = ANY(%s)",  # type: ignore[arg-type]  # noqa: S608
                    [value, list(calls)],
                )
        embed(*calls)
        count_words(database)

    return publish
