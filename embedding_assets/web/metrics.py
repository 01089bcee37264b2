"""Figures for Prometheus: of the whole system, counted when asked for, and of this server."""

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from embedding_assets.engine.database import Database
from embedding_assets.health.numbers import Figures, figures
from embedding_assets.web.fresh import Fresh

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
FRESH_SECONDS = 15.0  # counting the queue takes a while; two that scrape share one count
LATELY = timedelta(hours=1)

OWN = CollectorRegistry()
SEARCH_SECONDS = Histogram(
    "embedding_assets_search_seconds",
    "How long searches took, by what they were answered by.",
    ["mode"],
    registry=OWN,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8),
)
SEARCH_ERRORS = Counter(
    "embedding_assets_search_errors_total",
    "Searches that failed, by the kind of failure.",
    ["kind"],
    registry=OWN,
)


class Metrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self._system = Fresh(FRESH_SECONDS, _counted)

    def text(self, database: Database) -> bytes:
        """The figures in Prometheus's text format.

        Raises:
            EmbeddingAssetsError: the database cannot be read.
        """
        return self._system.of(database) + generate_latest(OWN)


def _counted(database: Database) -> bytes:
    system = CollectorRegistry()
    system.register(_System(figures(database, LATELY)))
    return generate_latest(system)


class _System(Collector):
    """The system's figures as gauges: they are counted anew, in a database that others write."""

    def __init__(self, counted: Figures) -> None:
        self.counted = counted

    def collect(self) -> Iterator[Metric]:
        numbers = self.counted.numbers
        queue = _gauge("recordings", "Recordings by the state of their row in the queue.", "state")
        for state, count in numbers.by_status.items():
            queue.add_metric([state], count)
        yield queue
        for name, value, help_text in (
            ("due", numbers.due, "Recordings that a worker would process now."),
            ("dead_letters", numbers.dead_letters, "Recordings that were given up."),
            ("stale_claims", numbers.stale_claims, "Recordings held by runs that have died."),
            ("broken_recordings", numbers.broken, "Recordings with findings of the inspection."),
            ("chunks", numbers.chunks, "Published chunks."),
        ):
            yield _one(name, help_text, value)
        waits = numbers.wanted_since
        age = (numbers.checked_at - waits).total_seconds() if waits else 0.0
        yield _one("oldest_due_seconds", "How long the oldest unpublished recording waits.", age)
        last = numbers.last_published_at
        if last is not None:
            yield _one("last_published_timestamp_seconds", "When one was.", last.timestamp())
        yield from self._attempts()
        yield from self._costs()
        yield from self._paces()

    def _attempts(self) -> Iterator[Metric]:
        rows = self.counted.attempts
        attempts = _gauge(
            "attempts_last_hour", "Attempts that ended within an hour.", "outcome", "kind"
        )
        for row in rows:
            attempts.add_metric([row.outcome, row.error_kind or ""], row.attempts)
        yield attempts
        for name, help_text in (
            ("embedded", "Chunks embedded within an hour."),
            ("tokens", "Tokens sent to the model within an hour: its pace."),
            ("refusals", "Requests that the model refused within an hour as too many."),
        ):
            yield _one(f"{name}_last_hour", help_text, sum(getattr(row, name) for row in rows))

    def _costs(self) -> Iterator[Metric]:
        by = ("model", "lane")
        tokens = _gauge("tokens_today", "Tokens sent to the model since midnight, UTC.", *by)
        requests = _gauge("requests_today", "Requests to the model since midnight, UTC.", *by)
        cost = _gauge("cost_today_dollars", "Their cost, where the price is known.", *by)
        for each in self.counted.costs:
            labels = [each.model, each.lane]
            tokens.add_metric(labels, each.tokens)
            requests.add_metric(labels, each.requests)
            if each.cost_usd is not None:
                cost.add_metric(labels, each.cost_usd)
        yield from (tokens, requests, cost)

    def _paces(self) -> Iterator[Metric]:
        pace = _gauge("pace_tokens_per_minute", "What the account lets through, as told.", "model")
        for each in self.counted.paces:
            pace.add_metric([each.model], each.tokens_per_minute)
        yield pace


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"embedding_assets_{name}", help_text, labels=labels)


def _one(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"embedding_assets_{name}", help_text, value=value)
