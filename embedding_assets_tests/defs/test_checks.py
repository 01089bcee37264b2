"""The health checks: real states of a real database, as Dagster's event log shows them."""

# ruff: noqa: S608  (statements are put together from this file's own words)

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from embedding_assets.definitions import defs
from embedding_assets.defs.checks import health_checks
from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets.defs.schedules import build_schedules
from embedding_assets.health.judging import CHECKS, DATABASE_CHECKS
from embedding_assets.settings import Settings
from embedding_assets_tests.calls import talk
from embedding_assets_tests.defs.conftest import (
    MARKER,
    RANGE_END,
    RANGE_START,
    Layer,
    contents,
    refusing_the_marker,
)
from embedding_assets_tests.loopback_api import Fault, LoopbackAPI

HEALTHY, WARNING, CRITICAL = None, "WARN", "ERROR"
STATES = {
    "pending": "status = 'pending'",
    "processing": "status = 'processing', claimed_by = 'run', lease_expires_at = now() + {}",
    "completed": "status = 'completed', completed_at = now(), transcript_version = 'v',"
    " chunk_count = 0, token_count = 0",
    # In its back-off.
    "failed": "status = 'failed', attempts = 1, error_kind = 'transient', last_error = 'away',"
    " next_attempt_at = now() + interval '1 hour'",
    "dead_letter": "status = 'dead_letter', attempts = 3, error_kind = 'transient',"
    " last_error = 'away'",
}


def fill(layer: Layer, lease: str = "interval '5 minutes'", **counts: int) -> None:
    """So many recordings in each state."""
    for state, count in counts.items():
        layer.execute(
            "INSERT INTO fathom_calls (recording_id, title)"
            " SELECT %s || n, 'A call' FROM generate_series(1, %s) AS n",
            f"{state}-",
            count,
        )
        layer.execute(
            f"UPDATE embedding_queue SET {STATES[state].format(lease)}"
            " WHERE recording_id LIKE %s || '%%'",
            f"{state}-",
        )


def evaluations(layer: Layer, run_id: str) -> dict[str, dg.AssetCheckEvaluation]:
    """What the event log says of the checks of a run, none of them twice."""
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    found = [
        entry.dagster_event.event_specific_data
        for entry in layer.instance.all_logs(run_id, of_type=kind)
        if entry.dagster_event is not None
    ]
    by_name = {each.check_name: each for each in found if isinstance(each, dg.AssetCheckEvaluation)}
    assert len(by_name) == len(found)
    assert {each.asset_key for each in by_name.values()} <= {TRANSCRIPT_CHUNKS}
    return by_name


def check_all(layer: Layer) -> dict[str, dg.AssetCheckEvaluation]:
    """A run of the job, which does its work whatever it finds."""
    result = layer.job("check_health").execute_in_process(instance=layer.instance)
    assert layer.dagster_run(result.run_id).status is dg.DagsterRunStatus.SUCCESS
    found = evaluations(layer, result.run_id)
    assert found.keys() == set(CHECKS)
    return found


def check_one(layer: Layer, name: str) -> dg.AssetCheckEvaluation:
    """What the button beside a single check does."""
    key = dg.AssetCheckKey(TRANSCRIPT_CHUNKS, name)
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection={key})
    result = job.execute_in_process(instance=layer.instance)
    assert layer.dagster_run(result.run_id).status is dg.DagsterRunStatus.SUCCESS
    found = evaluations(layer, result.run_id)
    assert found.keys() == {name}
    return found[name]


def colour(evaluation: dg.AssetCheckEvaluation) -> str | None:
    """None for green, else how red."""
    return None if evaluation.passed else evaluation.severity.value


def metadata(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_everything_is_green_where_nothing_is_wrong(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 6))
    assert layer.worker().success
    found = check_all(layer)
    assert {name: colour(each) for name, each in found.items()} == dict.fromkeys(CHECKS)
    assert all(each.description for each in found.values())
    assert all("What to do" not in (each.description or "") for each in found.values())


@pytest.mark.parametrize(
    ("letters", "expected"), [(20, HEALTHY), (21, WARNING), (50, WARNING), (51, CRITICAL)]
)
def test_dead_letters(layer: Layer, letters: int, expected: str | None) -> None:
    fill(layer, dead_letter=letters)
    found = check_one(layer, "dead_letters")
    assert colour(found) == expected
    figures = found.metadata["dead_letters"], found.metadata["waiting_for_person"]
    assert figures == (dg.MetadataValue.int(letters), dg.MetadataValue.int(0))
    told = (found.description or "").partition("What to do: ")
    assert told[0].startswith(f"{letters} recordings given up")
    assert ("embedding-assets retry --dead-letters" in told[2]) == (expected is not HEALTHY)
    assert metadata(found)["worst_1"].endswith(": transient: away")


@pytest.mark.parametrize(("recoveries", "expected"), [(2, HEALTHY), (3, WARNING)])
def test_one_that_waits_for_a_person_is_a_warning(
    layer: Layer, recoveries: int, expected: str | None
) -> None:
    fill(layer, dead_letter=1)
    layer.execute("UPDATE embedding_queue SET recoveries = %s", recoveries)
    found = check_one(layer, "dead_letters")
    assert colour(found) == expected
    assert ("waiting for a person" in (found.description or "")) == (expected == WARNING)
    assert metadata(found)["waiting_for_person"] == (expected == WARNING)


@pytest.mark.parametrize(
    ("waiting", "expected"), [(99, HEALTHY), (100, WARNING), (500, WARNING), (501, CRITICAL)]
)
def test_pending_backlog(layer: Layer, waiting: int, expected: str | None) -> None:
    fill(layer, pending=waiting)
    found = check_one(layer, "pending_backlog")
    assert colour(found) == expected
    assert found.metadata["pending"] == dg.MetadataValue.int(waiting)


def test_the_thresholds_are_settings(layer: Layer) -> None:
    layer.environment.setenv("HEALTH_PENDING_WARNING", "3")
    layer.environment.setenv("HEALTH_PENDING_CRITICAL", "4")
    fill(layer, pending=3)
    assert colour(check_one(layer, "pending_backlog")) == WARNING
    layer.execute("INSERT INTO fathom_calls (recording_id, title) VALUES ('more', 'A call')")
    assert colour(check_one(layer, "pending_backlog")) == CRITICAL


PUBLISHED = (
    "INSERT INTO embedding_attempts (attempt_id, recording_id, run_id, lane, outcome, seconds,"
    " finished_at) VALUES (gen_random_uuid(), 'x', 'run', 'standard', 'published', 1,"
    " now() - %s::interval)"
)
QUIET = {
    # due since, last published, how red
    "59 minutes of work and silence": ("59 minutes", None, HEALTHY),
    "an hour of it": ("1 hour", None, WARNING),
    "almost six hours": ("359 minutes", None, WARNING),
    "six hours": ("6 hours", None, CRITICAL),
    "work came a while ago, after a quiet night": ("59 minutes", "20 hours", HEALTHY),
    "work came long ago, after a quiet night": ("6 hours", "20 hours", CRITICAL),
    "a long queue that moves": ("7 hours", "59 minutes", HEALTHY),
    "a long queue that stood still an hour ago": ("7 hours", "1 hour", WARNING),
    "a long queue that stood still in the morning": ("7 hours", "6 hours", CRITICAL),
    "silence with nothing to do": (None, "3 days", HEALTHY),
    "an empty system": (None, None, HEALTHY),
}


@pytest.mark.parametrize("case", QUIET)
def test_recent_activity_is_missed_only_while_work_is_wanted(layer: Layer, case: str) -> None:
    due, published, expected = QUIET[case]
    if due is not None:
        fill(layer, pending=1)
        layer.execute("UPDATE embedding_queue SET enqueued_at = now() - %s::interval", due)
    if published is not None:
        layer.execute(PUBLISHED, published)
    found = check_one(layer, "recent_activity")
    assert colour(found) == expected
    if expected is not HEALTHY:
        assert (found.description or "").startswith("nothing published for ")
        assert metadata(found)["quiet_hours"] >= 1.0


def test_a_failure_in_its_back_off_is_wanted_too(layer: Layer) -> None:
    fill(layer, failed=1)
    layer.execute("UPDATE embedding_queue SET enqueued_at = now() - interval '59 minutes'")
    assert colour(check_one(layer, "recent_activity")) == HEALTHY
    layer.execute("UPDATE embedding_queue SET enqueued_at = now() - interval '7 hours'")
    assert colour(check_one(layer, "recent_activity")) == CRITICAL


@pytest.mark.parametrize(("completed", "expected"), [(100, HEALTHY), (99, HEALTHY), (98, WARNING)])
def test_completion_rate(layer: Layer, completed: int, expected: str | None) -> None:
    fill(layer, completed=completed, **({"failed": 1} if completed < 100 else {}), pending=50)
    found = check_one(layer, "completion_rate")
    assert colour(found) == expected
    percent = 100.0 if completed == 100 else round(100 * completed / (completed + 1), 3)
    assert found.metadata["completion_percent"] == dg.MetadataValue.float(percent)


@pytest.mark.parametrize(
    ("lease", "expected"), [("interval '1 minute'", HEALTHY), ("interval '-1 second'", WARNING)]
)
def test_stale_claims(layer: Layer, lease: str, expected: str | None) -> None:
    fill(layer, lease=lease, processing=1)
    found = check_one(layer, "stale_claims")
    assert colour(found) == expected
    assert found.metadata["stale_claims"] == dg.MetadataValue.int(expected is not HEALTHY)
    assert found.metadata["processing"] == dg.MetadataValue.int(1)


# configuration


def test_a_missing_key_is_critical_and_named(layer: Layer) -> None:
    layer.environment.delenv("OPENAI_API_KEY")
    found = check_one(layer, "configuration")
    assert colour(found) == CRITICAL
    assert "OPENAI_API_KEY" in (found.description or "")
    layer.environment.setenv("OPENAI_API_KEY", "sk-another")
    assert colour(check_one(layer, "configuration")) == HEALTHY


def test_a_live_model_that_is_not_the_settings_is_critical(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 3))
    layer.worker()
    assert colour(check_one(layer, "configuration")) == HEALTHY
    layer.environment.setenv("EMBEDDING_MODEL", "text-embedding-3-large")
    found = check_one(layer, "configuration")
    assert colour(found) == CRITICAL
    assert "switch-model" in (found.description or "")
    assert metadata(found)["model"] == "openai/text-embedding-3-large/64"
    assert metadata(found)["live_model"] == "openai/text-embedding-3-small/64"


def test_a_refused_key_is_critical_until_something_is_embedded(
    layer: Layer, api: LoopbackAPI
) -> None:
    layer.add_calls(a=talk("a", 3))
    api.faults = [Fault(status=401, code="invalid_api_key")]
    assert not layer.worker().success
    kinds = layer.rows("SELECT DISTINCT error_kind FROM embedding_attempts")
    assert kinds == [("configuration",)]
    found = check_one(layer, "configuration")
    assert colour(found) == CRITICAL
    assert "OPENAI_API_KEY" in (found.description or "")
    assert "sk-very-secret" not in str(found)
    api.faults = []
    assert layer.worker().success
    assert colour(check_one(layer, "configuration")) == HEALTHY


@pytest.fixture
def old_schema(layer: Layer) -> Iterator[None]:
    """A database that was not migrated, until the test is over."""
    ((revision,),) = layer.rows("SELECT version_num FROM embedding_assets_version")
    layer.execute("UPDATE embedding_assets_version SET version_num = '0001'")
    yield
    layer.execute("UPDATE embedding_assets_version SET version_num = %s", revision)


def _only_the_configuration_is_known(found: dict[str, dg.AssetCheckEvaluation], mend: str) -> None:
    configuration = found.pop("configuration")
    assert colour(configuration) == CRITICAL
    assert mend in (configuration.description or "")
    for name in set(CHECKS) - set(DATABASE_CHECKS):  # these do not need the database
        assert colour(found.pop(name)) is None
    assert {colour(each) for each in found.values()} == {WARNING}
    for each in found.values():
        assert (each.description or "").startswith("not looked at: ")
        assert mend in (each.description or "")


@pytest.mark.usefixtures("old_schema")
def test_an_old_schema_is_critical_and_the_rest_is_not_called_healthy(layer: Layer) -> None:
    _only_the_configuration_is_known(check_all(layer), "embedding-assets init")


def test_a_server_that_is_away_is_critical_and_its_password_is_not_shown(layer: Layer) -> None:
    layer.environment.setenv("DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/calls")
    found = check_all(layer)
    log = layer.instance.all_logs(next(iter(layer.instance.get_runs())).run_id)
    assert len(log) > len(CHECKS)
    assert "hunter2" not in str(log)
    _only_the_configuration_is_known(found, "DATABASE_URL")


# chunk_integrity

LAST_OF_A = (
    "recording_id = 'a' AND chunk_index = (SELECT max(chunk_index) FROM transcript_chunks"
    " WHERE recording_id = 'a')"
)
VECTOR_OF_A = f"content_hash = (SELECT content_hash FROM transcript_chunks WHERE {LAST_OF_A})"
BREAKAGES = {
    "missing chunks": (f"DELETE FROM transcript_chunks WHERE {LAST_OF_A}", "were published"),
    "a gap": (
        f"UPDATE transcript_chunks SET chunk_index = chunk_index + 1 WHERE {LAST_OF_A}",
        "a gap in chunk_index",
    ),
    "a missing vector": (
        f"DELETE FROM chunk_embeddings WHERE {VECTOR_OF_A}",
        "without a vector of the live model",
    ),
    "a wrong dimension": (
        f"UPDATE chunk_embeddings SET embedding = '[1,2,3]' WHERE {VECTOR_OF_A}",
        "wrong dimension",
    ),
    "a zero vector": (
        "UPDATE chunk_embeddings SET embedding = array_fill(0, ARRAY[64])::vector"
        f" WHERE {VECTOR_OF_A}",
        "length zero",
    ),
    "orphan chunks": (
        "DELETE FROM fathom_calls WHERE recording_id = 'a';"
        "DELETE FROM embedding_queue WHERE recording_id = 'a'",
        "not in the queue",
    ),
    "published empty": (
        "DELETE FROM transcript_chunks WHERE recording_id = 'a';"
        "UPDATE embedding_queue SET chunk_count = 0 WHERE recording_id = 'a'",
        "published without chunks, though its transcript has text",
    ),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_chunk_integrity_is_red_while_something_is_broken(layer: Layer, case: str) -> None:
    statements, problem = BREAKAGES[case]
    layer.environment.setenv("CHUNK_TARGET_TOKENS", "40")
    layer.environment.setenv("CHUNK_OVERLAP_TOKENS", "8")
    layer.environment.setenv("CHUNK_MAX_TOKENS", "60")
    layer.add_calls(a=talk("a", 30), b=talk("b", 30))
    assert layer.worker().success
    found = check_one(layer, "chunk_integrity")
    assert colour(found) == HEALTHY
    assert found.metadata["inspected_recordings"] == dg.MetadataValue.int(2)

    for statement in statements.split(";"):
        layer.execute(statement)
    found = check_one(layer, "chunk_integrity")
    assert colour(found) == CRITICAL
    assert found.metadata["broken"] == dg.MetadataValue.int(1)
    worst = metadata(found)["worst_1"]
    assert "worst_2" not in metadata(found)
    assert worst.startswith("a: ")
    assert problem in worst
    # Told until it is mended, at each look.
    assert colour(check_one(layer, "chunk_integrity")) == CRITICAL

    if case == "orphan chunks":
        layer.execute("DELETE FROM transcript_chunks WHERE recording_id = 'a'")
    else:
        layer.execute("DELETE FROM chunk_embeddings")
        assert layer.worker(recording_ids=["a", "b"]).success
    assert colour(check_one(layer, "chunk_integrity")) == HEALTHY


def test_only_the_check_of_the_chunks_looks_at_chunks(layer: Layer) -> None:
    looked = "SELECT inspected_at IS NOT NULL FROM integrity_progress"
    check_one(layer, "dead_letters")
    assert layer.rows(looked) == [(False,)]
    check_one(layer, "chunk_integrity")
    assert layer.rows(looked) == [(True,)]


@pytest.fixture
def unwritable(layer: Layer) -> Iterator[None]:
    """An inspection cannot write down how far it came."""
    layer.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$"
    )
    layer.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON integrity_progress"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    yield
    layer.execute("DROP FUNCTION refuse CASCADE")


@pytest.mark.usefixtures("unwritable")
def test_an_inspection_that_fails_is_a_warning_and_stops_no_other_check(layer: Layer) -> None:
    found = check_all(layer)
    integrity = found.pop("chunk_integrity")
    assert colour(integrity) == WARNING
    assert (integrity.description or "").startswith("not looked at: ")
    assert "the disk is full" in (integrity.description or "")
    assert {colour(each) for each in found.values()} == {HEALTHY}


# In runs that embed


def _launched_by_a_person(layer: Layer, **arguments: Any) -> dg.ExecuteInProcessResult:
    """What materializing `transcript_chunks` in the UI runs: its checks are in it."""
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={TRANSCRIPT_CHUNKS}
    )
    return job.execute_in_process(instance=layer.instance, raise_on_error=False, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"partition_key": "a"}, {"tags": {RANGE_START: "a", RANGE_END: "b"}}],
    ids=["one", "a range"],
)
def test_a_run_of_partitions_leaves_no_check_skipped(
    layer: Layer, arguments: dict[str, Any]
) -> None:
    layer.add_calls(a=talk("a", 3), b=talk("b", 3))
    fill(layer, dead_letter=51)
    result = _launched_by_a_person(layer, **arguments)
    assert result.success
    found = evaluations(layer, result.run_id)
    assert found.keys() == set(CHECKS)
    assert colour(found["dead_letters"]) == CRITICAL
    # After the recordings, of which it tells.
    assert metadata(found["recent_activity"])["published_last_hour"] == len(layer.materialized())


def test_recordings_that_fail_keep_no_check_from_running(layer: Layer, api: LoopbackAPI) -> None:
    api.faults = [refusing_the_marker()]
    layer.add_calls(a=[MARKER], b=talk("b", 3))
    result = _launched_by_a_person(layer, tags={RANGE_START: "a", RANGE_END: "b"})
    assert not result.success
    found = evaluations(layer, result.run_id)
    assert found.keys() == set(CHECKS)
    assert metadata(found["completion_rate"])["failed"] == 1
    assert layer.partition_states() == {"a": "FAILED", "b": "MATERIALIZED"}


def test_a_recordings_own_job_looks_at_nothing_else(layer: Layer) -> None:
    layer.add_calls(a=talk("a", 3))
    result = layer.materialize("a")
    assert result.success
    assert evaluations(layer, result.run_id) == {}


# The job and its schedule


@pytest.mark.parametrize("name", ["check_health", "snapshot_health"])
def test_a_tick_starts_one_run_and_none_beside_it(layer: Layer, name: str) -> None:
    def tick() -> Any:
        before = contents(layer)
        (schedule,) = [each for each in build_schedules(Settings()) if each.name == name]
        context = dg.build_schedule_context(
            instance=layer.instance,
            scheduled_execution_time=datetime(2026, 1, 2, 3, 10, tzinfo=UTC),
            repository_def=defs.get_repository_def(),
        )
        with context:
            data = schedule.evaluate_tick(context)
        assert contents(layer) == before
        return data

    layer.started_run("embed_recordings")  # another job's
    assert len(tick().run_requests) == 1
    run = layer.started_run(name)
    data = tick()
    assert data.run_requests == []
    assert run.run_id in data.skip_message
    layer.instance.report_run_failed(run)
    assert len(tick().run_requests) == 1
    queued = layer.instance.create_run_for_job(layer.job(name))
    assert queued.run_id in tick().skip_message


@pytest.mark.parametrize("name", ["check_health", "snapshot_health"])
def test_a_run_whose_process_was_killed_is_ended_by_dagster(name: str) -> None:
    # Else the schedule would wait for it for hours.
    assert 0 < int(layer_job_tags(name)["dagster/max_runtime"]) <= 600


def layer_job_tags(name: str) -> dict[str, str]:
    return dict(Layer.job(name).run_tags)


def test_the_checks_take_no_input_and_have_no_partitions() -> None:
    assert health_checks.node_def.input_defs == []
    assert health_checks.partitions_def is None
    assert health_checks.can_subset


def test_a_worker_leaves_no_check_unevaluated(layer: Layer) -> None:
    # Dagster takes a check for not evaluated once its asset was materialized after it.
    layer.add_calls(a=talk("a", 5))
    assert layer.worker().success
    newest = layer.instance.get_latest_materialization_event(TRANSCRIPT_CHUNKS)
    assert newest is not None
    keys = [dg.AssetCheckKey(TRANSCRIPT_CHUNKS, name) for name in CHECKS]
    storage: Any = layer.instance.event_log_storage
    records = storage.get_latest_asset_check_execution_by_key(keys)
    assert set(records) == set(keys)
    for record in records.values():
        assert record.create_timestamp > newest.timestamp
        assert record.evaluation.passed
