from datetime import UTC, datetime

import dagster as dg
import pytest

from embedding_assets.defs.assets.transcript_chunks import COLUMNS, transcript_chunks
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    Layer,
    failure_of,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import LoopbackAPI

SECRET_WORD = "a word of a transcript that nobody may log"


def test_a_partition_is_materialized_with_what_it_took(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=talk("a", 60), b=talk("b", 60))
    result = layer.materialize("a")
    assert result.success
    ((partition, metadata),) = layer.materializations(result).items()
    assert partition == "a"
    seconds = metadata.pop("seconds")
    assert 0 < seconds < 60
    chunks = layer.rows("SELECT count(*) FROM transcript_chunks")[0][0]
    (version,) = layer.rows(
        "SELECT transcript_version FROM embedding_queue WHERE status = 'completed'"
    )[0]
    assert metadata == {
        "published_by": result.run_id,
        "transcript_version": version,
        "chunks": chunks,
        "embedded": chunks,
        "reused": 0,
        "tokens": api.stats.tokens,
        "cost_usd": pytest.approx(api.stats.tokens * 0.02 / 1e6),
        "lane": "standard",
        "model": "openai/text-embedding-3-small/64",
    }
    assert chunks > 1
    assert layer.statuses() == {"a": "completed", "b": "pending"}
    assert layer.materialized() == {"a"}


def test_a_range_materializes_each_of_its_partitions(layer: Layer) -> None:
    layer.add_calls(**{name: talk(name, 20) for name in "abcde"})
    result = layer.materialize("b", "d")
    assert result.success
    assert set(layer.materializations(result)) == {"b", "c", "d"}
    assert layer.materialized() == {"b", "c", "d"}


def test_a_range_shows_the_one_that_failed_as_failed_and_the_others_as_materialized(
    layer: Layer, api: LoopbackAPI
) -> None:
    calls = {name: talk(name, 20) for name in "abcde"}
    calls["c"][7] = f"{MARKER} {SECRET_WORD}"
    layer.add_calls(**calls)
    api.faults = [refusing_the_marker()]
    result = layer.materialize("a", "e")
    assert set(layer.materializations(result)) == {"a", "b", "d", "e"}
    text, metadata = failure_of(result)
    assert text.startswith("1 recordings failed: c: invalid_input: ")
    assert metadata["failed_recordings"] == ["c"]
    assert layer.partition_states() == {
        "a": "MATERIALIZED",
        "b": "MATERIALIZED",
        "c": "FAILED",
        "d": "MATERIALIZED",
        "e": "MATERIALIZED",
    }
    assert layer.statuses() == dict.fromkeys("abde", "completed") | {"c": "failed"}

    api.faults = []
    assert layer.materialize("c").success
    assert set(layer.partition_states().values()) == {"MATERIALIZED"}
    assert api.stats.sent_twice == []


def test_no_text_of_a_transcript_is_in_what_dagster_keeps(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=[f"{MARKER} {SECRET_WORD}"], b=[SECRET_WORD])
    api.faults = [refusing_the_marker()]
    result = layer.materialize("a", "b")
    assert not result.success
    entries = layer.instance.all_logs(result.run_id)
    assert len(entries) > 5
    assert [entry for entry in entries if SECRET_WORD in repr(entry)] == []
    assert [entry for entry in entries if "sk-very-secret" in repr(entry)] == []


def test_materializing_again_sends_nothing(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=talk("a", 60))
    (first,) = layer.materializations(layer.materialize("a")).values()
    requests = api.stats.requests
    (again,) = layer.materializations(layer.materialize("a")).values()
    assert (again["chunks"], again["embedded"]) == (first["chunks"], 0)
    assert (again["reused"], again["tokens"], again["cost_usd"]) == (first["chunks"], 0, 0.0)
    assert api.stats.requests == requests
    assert api.stats.sent_twice == []


def test_an_edit_embeds_only_what_changed(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=talk("a", 200))
    layer.materialize("a")
    layer.execute("UPDATE fathom_transcripts SET edited_text = 'corrected' WHERE position = 100")
    (again,) = layer.materializations(layer.materialize("a")).values()
    assert 0 < again["embedded"] <= 3
    assert again["reused"] == again["chunks"] - again["embedded"] > 3
    assert api.stats.sent_twice == []


def test_the_partition_of_a_deleted_call_leaves_no_chunks_and_no_event(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 20), b=talk("b", 20))
    layer.materialize("a", "b")
    layer.execute("DELETE FROM fathom_calls WHERE recording_id = 'a'")
    result = layer.materialize("a")
    assert result.success
    assert layer.materializations(result) == {}
    assert layer.rows("SELECT DISTINCT recording_id FROM transcript_chunks") == [("b",)]
    assert layer.statuses() == {"b": "completed"}


def test_the_configured_lane_and_batch_reach_the_engine(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 150), b=talk("b", 150))
    (careful,) = layer.materializations(layer.materialize("a", lane="small_batch")).values()
    (sized,) = layer.materializations(layer.materialize("b", insert_batch=2)).values()
    assert (careful["lane"], sized["lane"]) == ("small_batch", "standard")
    batches = layer.rows(
        "SELECT recording_id, smallest_insert_batch FROM embedding_attempts ORDER BY 1"
    )
    assert batches == [("a", 5), ("b", 2)]


def test_an_unknown_lane_is_refused_before_the_run(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 20))
    with pytest.raises(dg.DagsterInvalidConfigError):
        layer.materialize("a", lane="careless")
    assert layer.statuses() == {"a": "pending"}


def test_a_partition_that_another_run_is_done_with_is_taken(layer: Layer, api: LoopbackAPI) -> None:
    layer.add_calls(a=talk("a", 20))
    dead = layer.started_run(hours_ago=1)
    layer.execute(
        "UPDATE embedding_queue SET status = 'processing', claimed_by = %s, started_at = now(),"
        " lease_expires_at = now() + interval '5 minutes'",
        dead.run_id,
    )
    result = layer.materialize("a", take_over=dead.run_id)
    assert result.success
    assert layer.statuses() == {"a": "completed"}


CALL = {
    "title": "A private title",
    "url": "https://recorder.example/calls/a",
    "recorded_at": "2026-03-04T10:00:00Z",
    "duration": 90.5,
}


@pytest.mark.parametrize("shares", ["", "true"])
def test_a_materialization_says_which_call_it_is_and_its_title_only_if_told(
    layer: Layer, environment: pytest.MonkeyPatch, shares: str
) -> None:
    environment.setenv("SHARE_TITLES", shares)
    layer.add_calls(a=["Hello."])
    layer.execute(
        "UPDATE fathom_calls SET title = %s, url = %s, recorded_at = %s, duration = %s",
        *CALL.values(),
    )
    metadata = layer.materializations(layer.materialize("a"))["a"]
    assert metadata["recording"] == CALL["url"]
    assert metadata["duration_seconds"] == 90.5
    assert metadata["recorded_at"] == datetime(2026, 3, 4, 10, tzinfo=UTC).timestamp()
    assert metadata.get("title") == (CALL["title"] if shares else None)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://", "https://recorder.example/\x1b]8;;"]
)
def test_only_a_web_address_becomes_a_link_and_an_unknown_date_stays_unknown(
    layer: Layer, url: str
) -> None:
    layer.add_calls(a=["Hello."])
    layer.execute("UPDATE fathom_calls SET url = %s, recorded_at = NULL", url)
    metadata = layer.materializations(layer.materialize("a"))["a"]
    assert "recording" not in metadata
    assert "recorded_at" not in metadata


def test_the_assets_columns_are_those_of_the_table(layer: Layer) -> None:
    real = layer.rows(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = 'transcript_chunks'::regclass AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum"
    )
    named = [
        (column.name, column.type.replace("timestamptz", "timestamp with time zone"))
        for column in COLUMNS.columns
    ]
    assert named == real
    assert [column.name for column in COLUMNS.columns if not column.description] == []


def test_the_asset_says_whose_it_is_and_of_what_kind() -> None:
    (spec,) = transcript_chunks.specs
    assert spec.owners == ["team:embedding-assets"]
    assert spec.kinds == {"postgres", "pgvector"}
    assert spec.tags["contains"] == "what-was-said"
    assert spec.metadata["dagster/column_schema"] == COLUMNS
