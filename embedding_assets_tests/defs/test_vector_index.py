"""The vector index as Dagster shows it: parts as partitions, built by a job or by hand."""

from collections.abc import Callable

import dagster as dg
import pytest

from embedding_assets.definitions import defs
from embedding_assets.defs.assets.vector_index import PARTS, VECTOR_INDEX
from embedding_assets_tests.defs.conftest import DIMENSIONS, Layer, Tick, failure_of

# A part for each hundred vectors; four of them become one.
TAIL = 100
VECTORS = """
INSERT INTO chunk_embeddings (model, content_hash, embedding, token_count)
SELECT 'm', sha256((%s::text || n)::bytea),
       (SELECT array_agg(sin(n * d))::vector FROM generate_series(1, %s) AS d), 1
FROM generate_series(1, %s) AS n
"""

Fill = Callable[[int], None]


@pytest.fixture
def fill(layer: Layer) -> Fill:
    """Adds so many vectors."""
    layer.environment.setenv("INDEX_TAIL_ROWS", str(TAIL))
    layer.execute("INSERT INTO embedding_models VALUES ('m', %s, true)", DIMENSIONS)
    calls = 0

    def fill(count: int) -> None:
        nonlocal calls
        calls += 1
        layer.execute(VECTORS, calls, DIMENSIONS, count)

    return fill


def _maintain(layer: Layer) -> dg.ExecuteInProcessResult:
    return layer.job("maintain_vector_index").execute_in_process(
        instance=layer.instance, raise_on_error=False
    )


def _build(layer: Layer, name: str) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=layer.instance,
        asset_selection=[VECTOR_INDEX],
        partition_key=name,
        raise_on_error=False,
    )


def _parts(layer: Layer) -> dict[str, int]:
    return dict(layer.rows("SELECT index_name, rows FROM vector_index_parts"))


def test_the_schedule_waits_until_a_part_pays(layer: Layer, fill: Fill, scheduled: Tick) -> None:
    fill(TAIL - 1)
    assert "worth" in scheduled("maintain_vector_index").skip_message
    fill(1)
    assert len(scheduled("maintain_vector_index").run_requests) == 1


def test_no_second_run_is_started_beside_one(layer: Layer, fill: Fill, scheduled: Tick) -> None:
    fill(TAIL)
    run = layer.started_run("maintain_vector_index")
    assert run.run_id in scheduled("maintain_vector_index").skip_message


def test_a_part_becomes_a_materialized_partition(layer: Layer, fill: Fill) -> None:
    fill(TAIL)
    result = _maintain(layer)
    assert result.success
    ((name, count),) = _parts(layer).items()
    assert count == TAIL
    assert list(layer.instance.get_dynamic_partitions(PARTS)) == [name]
    (event,) = result.get_asset_materialization_events()
    assert (event.asset_key, event.partition) == (VECTOR_INDEX, name)
    metadata = {key: value.value for key, value in event.materialization.metadata.items()}
    assert metadata["vectors"] == TAIL
    assert metadata["model"] == "m"
    assert metadata["bytes"] > 0
    assert not _maintain(layer).get_asset_materialization_events()


def test_the_partitions_of_merged_parts_go(layer: Layer, fill: Fill) -> None:
    built: set[str] = set()
    for _ in range(4):
        fill(TAIL)
        assert _maintain(layer).success
        built |= _parts(layer).keys()
    ((name, count),) = _parts(layer).items()
    assert count == 4 * TAIL
    assert list(layer.instance.get_dynamic_partitions(PARTS)) == [name]
    assert len(built) == 4
    left = layer.rows("SELECT indexname FROM pg_indexes WHERE indexname = ANY(%s)", list(built))
    assert left == [(name,)]


def test_a_person_may_build_a_part_again(layer: Layer, fill: Fill) -> None:
    fill(TAIL)
    _maintain(layer)
    (name,) = _parts(layer)
    result = _build(layer, name)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.partition == name


def test_a_part_that_was_taken_in_says_so(layer: Layer, fill: Fill) -> None:
    layer.instance.add_dynamic_partitions(PARTS, ["vector_part_old"])
    text, _ = failure_of(_build(layer, "vector_part_old"))
    assert "no part of the index any more" in text


def test_a_build_that_cannot_be_made_fails_the_run_and_is_made_by_the_next(
    layer: Layer, fill: Fill
) -> None:
    fill(TAIL)
    layer.environment.setenv("INDEX_BUILD_MEMORY", "1 kB")  # less than Postgres allows
    text, _ = failure_of(_maintain(layer))
    assert "INDEX_BUILD_MEMORY" in text
    layer.environment.delenv("INDEX_BUILD_MEMORY")
    assert _maintain(layer).success
    assert list(_parts(layer).values()) == [TAIL]
