"""Partitions of the last months only: who has one, who loses it, and what becomes of the others."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from embedding_assets.defs.launching import RELAUNCH_OF_TAG
from embedding_assets.defs.partitions import RECORDINGS, has_partition, partitions_since
from embedding_assets_tests.calls import add_call, talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    Layer,
    Tick,
    failure_of,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import LoopbackAPI

NEW, OLD = 20, 200  # days ago, with six months between them
Follow = Callable[[], Any]


@pytest.fixture(autouse=True)
def six_months(layer: Layer) -> None:
    layer.environment.setenv("PARTITION_MONTHS", "6")


@pytest.fixture
def follow(layer: Layer, tick: Tick) -> Follow:
    """A tick of the sensor, whose requests are granted as the daemon does."""

    def follow() -> Any:
        data = tick("discover_recordings")
        for request in data.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                layer.instance.add_dynamic_partitions(RECORDINGS, request.partition_keys)
            else:
                for key in request.partition_keys:
                    layer.instance.delete_dynamic_partition(RECORDINGS, key)
        return data

    return follow


def _recorded(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) - timedelta(days=days)


def _add(layer: Layer, bad: str = "", **days: float | None) -> None:
    """Calls that were recorded so many days ago, None: nobody knows when; bad ones are refused."""
    with layer.database.transaction() as connection:
        for name, ago in days.items():
            add_call(connection, name, talk(name, 9) + ([MARKER] if name in bad else []))
            connection.execute(
                "UPDATE fathom_calls SET recorded_at = %s WHERE recording_id = %s",
                [_recorded(ago), name],
            )


def _keys(layer: Layer) -> set[str]:
    return set(layer.instance.get_dynamic_partitions(RECORDINGS))


def _searchable(layer: Layer) -> set[str]:
    return {name for (name,) in layer.rows("SELECT DISTINCT recording_id FROM transcript_chunks")}


def test_only_calls_of_the_last_months_become_partitions(layer: Layer, follow: Follow) -> None:
    _add(layer, new=NEW, old=OLD, dateless=None)
    assert len(follow().run_requests) == 1
    assert _keys(layer) == {"new"}


def test_a_worker_embeds_all_and_tells_of_each_partition_and_of_the_others_together(
    layer: Layer, follow: Follow
) -> None:
    _add(layer, new=NEW, old=OLD, older=3 * OLD, dateless=None)
    result = layer.worker()
    assert result.success
    found = layer.materializations(result)
    assert set(found) == {"new", None}
    chunks = dict(
        layer.rows("SELECT recording_id, count(*) FROM transcript_chunks GROUP BY recording_id")
    )
    assert set(chunks) == {"new", "old", "older", "dateless"}
    others = sum(chunks.values()) - chunks["new"]
    ((tokens,),) = layer.rows(
        "SELECT sum(tokens) FROM embedding_attempts WHERE recording_id <> 'new'"
    )
    assert found[None] == {
        "recordings_without_partition": 3,
        "chunks": others,
        "embedded": others,
        "tokens": tokens,
        "published_by": result.run_id,
    }
    assert layer.partition_states() == {"new": "MATERIALIZED"}
    assert not follow().dynamic_partitions_requests


def test_nothing_is_told_of_calls_without_a_partition_where_there_are_none(layer: Layer) -> None:
    _add(layer, new=NEW)
    assert set(layer.materializations(layer.worker())) == {"new"}


def test_what_got_too_old_loses_its_partition_and_nothing_else(
    layer: Layer, follow: Follow
) -> None:
    layer.environment.delenv("PARTITION_MONTHS")
    _add(layer, new=NEW, old=OLD, dateless=None)
    follow()
    first = layer.worker()
    assert _keys(layer) == {"new", "old", "dateless"}

    layer.environment.setenv("PARTITION_MONTHS", "6")
    follow()
    assert _keys(layer) == {"new"}
    assert _searchable(layer) == {"new", "old", "dateless"}
    assert set(layer.statuses().values()) == {"completed"}
    assert set(layer.materializations(first)) == {"new", "old", "dateless"}  # the history stays


def test_a_key_that_a_run_works_on_is_kept_until_then(layer: Layer, follow: Follow) -> None:
    _add(layer, old=OLD, older=2 * OLD)
    layer.instance.add_dynamic_partitions(RECORDINGS, ["old", "older"])
    layer.hold("alive", "old", lease=timedelta(minutes=5))
    follow()
    assert _keys(layer) == {"old"}
    layer.execute(
        "UPDATE embedding_queue SET status = 'pending', claimed_by = NULL, lease_expires_at = NULL"
        " WHERE recording_id = 'old'"
    )
    follow()
    assert _keys(layer) == set()


def test_a_run_of_a_partition_that_got_too_old_meanwhile_materializes_it(layer: Layer) -> None:
    _add(layer, old=OLD)
    layer.instance.add_dynamic_partitions(RECORDINGS, ["old"])
    assert set(layer.materializations(layer.materialize("old"))) == {"old"}


def test_an_old_call_that_changes_is_embedded_again_and_never_gets_a_partition_back(
    layer: Layer, follow: Follow
) -> None:
    _add(layer, new=NEW, old=OLD)
    layer.worker()
    follow()
    layer.execute(
        "UPDATE fathom_transcripts SET edited_text = 'the corrected sentence'"
        " WHERE recording_id = 'old' AND position = 1"
    )
    assert len(follow().run_requests) == 1
    found = layer.materializations(layer.worker())
    assert set(found) == {None}
    assert found[None]["recordings_without_partition"] == 1
    assert layer.rows(
        "SELECT DISTINCT recording_id FROM transcript_chunks"
        " WHERE chunk_text LIKE '%%the corrected sentence%%'"
    ) == [("old",)]
    follow()
    assert _keys(layer) == {"new"}


def test_a_longer_time_gives_partitions_back_with_their_history(
    layer: Layer, follow: Follow
) -> None:
    layer.environment.setenv("PARTITION_MONTHS", "12")
    _add(layer, new=NEW, old=OLD, older=3 * OLD)
    layer.worker()
    layer.environment.setenv("PARTITION_MONTHS", "6")
    follow()
    assert layer.partition_states() == {"new": "MATERIALIZED"}
    layer.environment.setenv("PARTITION_MONTHS", "12")
    follow()
    assert layer.partition_states() == {"new": "MATERIALIZED", "old": "MATERIALIZED"}
    layer.environment.delenv("PARTITION_MONTHS")
    follow()
    # It was published without a partition, so that Dagster never heard of it.
    assert layer.partition_states() == {
        "new": "MATERIALIZED",
        "old": "MATERIALIZED",
        "older": None,
    }


def test_a_date_that_is_corrected_decides_anew(layer: Layer, follow: Follow) -> None:
    _add(layer, a=NEW, b=OLD)
    follow()
    assert _keys(layer) == {"a"}
    for name, days in (("a", OLD), ("b", NEW)):
        layer.execute(
            "UPDATE fathom_calls SET recorded_at = %s WHERE recording_id = %s",
            _recorded(days),
            name,
        )
    follow()
    assert _keys(layer) == {"b"}


def test_what_a_worker_failed_is_launched_again_with_and_without_a_partition(
    layer: Layer, api: LoopbackAPI, tick: Tick
) -> None:
    _add(layer, bad="acd", a=NEW, b=OLD, c=OLD, d=OLD)
    cursor = tick("relaunch_failed_recordings").cursor
    api.faults = [refusing_the_marker()]
    failed = layer.worker()
    _, metadata = failure_of(failed)
    assert sorted(metadata["failed_recordings"]) == ["a", "c", "d"]
    # The event of what was published comes though the run failed.
    assert layer.materializations(failed)[None]["recordings_without_partition"] == 1
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'd'")

    requests = tick("relaunch_failed_recordings", cursor).run_requests
    single, worker = sorted(requests, key=lambda request: request.job_name)
    assert single.tags["dagster/partition"] == "a"
    assert single.tags[RELAUNCH_OF_TAG] == worker.tags[RELAUNCH_OF_TAG] == failed.run_id
    (config,) = [step["config"] for step in worker.run_config["ops"].values()]
    assert config["recording_ids"] == ["c"]
    api.faults = []
    assert layer.materializations(layer.worker(**config))[None]["chunks"] > 0
    assert layer.statuses()["c"] == "completed"


def test_dead_letters_are_recovered_without_a_partition(layer: Layer) -> None:
    _add(layer, new=NEW, old=OLD)
    layer.execute(
        "UPDATE embedding_queue SET status = 'dead_letter', attempts = 3, error_kind = 'transient',"
        " last_error = 'away', next_attempt_at = now()"
    )
    result = layer.run("recover_dead_letters", "embed_dead_letters")
    assert result.success
    assert set(layer.materializations(result)) == {"new", None}
    assert set(layer.statuses().values()) == {"completed"}


@pytest.mark.parametrize(
    ("now", "months", "since"),
    [
        ((2026, 7, 31), 1, (2026, 6, 30)),
        ((2026, 1, 15), 1, (2025, 12, 15)),
        ((2026, 12, 31), 12, (2025, 12, 31)),
        ((2024, 2, 29), 12, (2023, 2, 28)),
        ((2026, 3, 31), 13, (2025, 2, 28)),
    ],
)
def test_months_are_those_of_the_calendar(
    now: tuple[int, int, int], months: int, since: tuple[int, int, int]
) -> None:
    first = datetime(*since, tzinfo=UTC)
    assert partitions_since(months, datetime(*now, 23, 59, tzinfo=UTC)) == first
    assert has_partition(first, first)
    assert not has_partition(first - timedelta(microseconds=1), first)


def test_without_the_setting_every_recording_has_a_partition() -> None:
    assert partitions_since(None, datetime.now(UTC)) is None
    assert has_partition(None, None)


def test_a_queued_run_of_a_partition_that_went_meanwhile_fails_and_a_worker_embeds_it(
    layer: Layer,
) -> None:
    _add(layer, old=OLD)
    queued = layer.job("embed_recording").execute_in_process(
        instance=layer.instance, tags={"dagster/partition": "old"}, raise_on_error=False
    )
    assert not queued.success
    assert layer.statuses() == {"old": "pending"}
    assert layer.worker().success
    assert layer.statuses() == {"old": "completed"}
