"""`embedding_health`: an hourly snapshot of the system's health, with a picture of two weeks."""

import base64
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from embedding_assets.defs.assets.transcript_chunks import transcript_chunks
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.health.findings import Health, Severity
from embedding_assets.health.numbers import Numbers, attempts_by_hour
from embedding_assets.health.system import system_health
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings

EMBEDDING_HEALTH = dg.AssetKey("embedding_health")
# Two weeks of hourly snapshots, and some. More would be slow to read: each contains its picture.
MOST_SNAPSHOTS = 400


@dg.asset(
    key=EMBEDDING_HEALTH,
    deps=[transcript_chunks],
    group_name="health",
    kinds={"postgres", "pandas"},
    description="How well the system is: numbers that Dagster plots, and a picture of two weeks.",
)
def embedding_health(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Takes a snapshot.

    Raises:
        dg.Failure: the database cannot be read.
    """
    settings = Settings()
    health = system_health(settings)
    if health.numbers is None:
        unreadable = health.findings[0]
        raise _failure(f"{unreadable.message}; {unreadable.action}")
    try:
        picture = _picture(settings, context.instance, health.numbers)
    except EmbeddingAssetsError as error:
        raise _failure(str(error)) from None
    encoded = base64.b64encode(picture).decode()
    return dg.MaterializeResult(
        metadata={
            **figures(health.numbers, health.severity),
            "status": dg.MetadataValue.text(str(health.severity)),
            "costs_today": dg.MetadataValue.md(_costs(health)),
            "reasons": dg.MetadataValue.text(_reasons(health)),
            "trends": dg.MetadataValue.md(f"![the last days](data:image/png;base64,{encoded})"),
        }
    )


def figures(numbers: Numbers, severity: Severity) -> dict[str, dg.MetadataValue]:
    """The numbers under the names that Dagster plots them by."""
    counts = {
        **numbers.by_status,
        "unqueued": numbers.unqueued,
        "due": numbers.due,
        "stale_claims": numbers.stale_claims,
        "waiting_for_person": numbers.waiting_for_person,
        "chunks": numbers.chunks,
        "broken": numbers.broken,
        "published_last_hour": numbers.published_last_hour,
        "embedded_last_hour": numbers.embedded_last_hour,
        "failures_last_hour": numbers.failures_last_hour,
        "requests_today": numbers.requests_today,
        "tokens_today": numbers.tokens_today,
        "severity": severity.rank,
    }
    figures: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.int(count) for name, count in counts.items()
    }
    figures["completion_percent"] = dg.MetadataValue.float(round(numbers.completion_percent, 3))
    if numbers.cost_today_usd is not None:
        figures["cost_today_usd"] = dg.MetadataValue.float(numbers.cost_today_usd)
    return figures


def _costs(health: Health) -> str:
    """A table of what each model cost today in each lane."""
    lines = ["| model | lane | requests | tokens | US dollars |", "| --- | --- | --- | --- | --- |"]
    for each in health.costs:
        cost = "unknown" if each.cost_usd is None else f"{each.cost_usd:.4f}"
        model = each.model.replace("|", " ")
        lines.append(f"| {model} | {each.lane} | {each.requests} | {each.tokens} | {cost} |")
    return "\n".join(lines) if health.costs else "nothing"


def _reasons(health: Health) -> str:
    bad = [finding for finding in health.findings if finding.severity > Severity.HEALTHY]
    return "; ".join(f"{each.severity}: {each.name}: {each.message}" for each in bad) or "none"


def _picture(settings: Settings, instance: dg.DagsterInstance, numbers: Numbers) -> bytes:
    # matplotlib keeps its list of fonts there, and warns where it cannot.
    os.environ.setdefault("MPLCONFIGDIR", str(settings.home / "matplotlib"))
    # Half a second and many megabytes, which no other run needs.
    from embedding_assets.health import trends  # noqa: PLC0415

    now = numbers.checked_at.astimezone(UTC)
    since = trends.window(now)
    counted = {**snapshots(instance, since, trends.STATES), now: numbers.by_status}
    with open_database(settings) as database:
        attempts = attempts_by_hour(database, since)
    return trends.picture(trends.trends(attempts, counted, now))


def snapshots(
    instance: dg.DagsterInstance, since: datetime, states: Iterable[str]
) -> dict[datetime, Mapping[str, Any]]:
    """Recordings by state, as earlier materializations since then counted them."""
    found: dict[datetime, Mapping[str, Any]] = {}
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(EMBEDDING_HEALTH, after_timestamp=since.timestamp()), MOST_SNAPSHOTS
    ).records
    for record in records:
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        counted = {name: value.value for name, value in metadata.items()}
        found[datetime.fromtimestamp(record.timestamp, UTC)] = {
            state: counted.get(state) for state in states
        }
    return found


def _failure(text: str) -> dg.Failure:
    return dg.Failure(text, allow_retries=False)
