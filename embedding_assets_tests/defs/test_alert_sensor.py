"""Alerts through Dagster: ticks that only ask, runs that send, channels that are down for a while.

The sensor, its cursor, the runs and their storage are real, as are Apprise's plugins and the
receivers; Slack's and Discord's host is redirected to 127.0.0.1. Time passes by moving the
cursor's times into the past.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (  # what a run in the queue must have
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from embedding_assets.defs.sensors import ALERT_TAG, DEAD_AFTER
from embedding_assets.health.alerts import from_cursor
from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.defs.conftest import (
    DAGSTER_DATABASE,
    Layer,
    Tick,
    failure_of,
)
from embedding_assets_tests.loopback_receivers import (
    DISCORD_URL,
    MAIL_PASSWORD,
    SECRETS,
    SLACK_URL,
    Mailbox,
    Webhooks,
    free_port,
    mail_url,
    redirect_plugins,
)

SENSOR = "alert_on_health_change"
WARNING = "Embedding Assets: warning: pending_backlog"
CRITICAL = "Embedding Assets: critical: pending_backlog"
WELL = "Embedding Assets: all well again"
SLACK, DISCORD = "/services/", "/api/webhooks/"
MOMENT = re.compile(r'"(\d{4}-\d\d-\d\dT[^"]+)"')


class Alerting:
    """The sensor as the daemon runs it: nothing is kept from tick to tick but the cursor."""

    def __init__(self, layer: Layer, tick: Tick) -> None:
        self.layer = layer
        self.cursor: str | None = None
        self.skipped: str | None = None
        self.asked: list[str] = []
        self._tick = tick

    def requests(self) -> list[dg.RunRequest]:
        """What one tick asks for."""
        data: Any = self._tick(SENSOR, self.cursor)
        self.cursor = data.cursor
        self.skipped = data.skip_message
        keys = [request.run_key for request in data.run_requests or []]
        # The daemon launches no run for a key that it has seen.
        assert not set(keys) & set(self.asked)
        self.asked += keys
        return list(data.run_requests or [])

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """What the daemon would launch."""
        return self.layer.job("send_alert").execute_in_process(
            instance=self.layer.instance,
            run_config=request.run_config,
            tags={**request.tags, "dagster/run_key": str(request.run_key)},
            raise_on_error=False,
        )

    def tick(self) -> list[dg.ExecuteInProcessResult]:
        """One tick, and the runs that it asked for."""
        return [self.run(request) for request in self.requests()]

    def later(self, span: timedelta) -> None:
        """Lets time pass, as far as the cursor knows."""

        def earlier(match: re.Match[str]) -> str:
            return f'"{(datetime.fromisoformat(match[1]) - span).isoformat()}"'

        assert self.cursor is not None
        self.cursor = MOMENT.sub(earlier, self.cursor)
        assert from_cursor(self.cursor) is not None

    def ticks(self, count: int) -> None:
        """Ticks a minute apart."""
        for _ in range(count):
            self.later(timedelta(minutes=1))
            self.tick()


@pytest.fixture
def alerting(layer: Layer, tick: Tick) -> Alerting:
    layer.environment.setenv("ALERT_SETTLE_MINUTES", "0")
    return Alerting(layer, tick)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhooks]:
    with Webhooks() as hooks:
        redirect_plugins(monkeypatch, hooks.port)
        yield hooks


def _urls(layer: Layer, *urls: str) -> None:
    layer.environment.setenv("ALERT_URLS", "\n".join(urls))


def _backlog(layer: Layer, count: int) -> None:
    """So many recordings wait."""
    layer.execute("DELETE FROM fathom_calls")
    layer.execute("DELETE FROM embedding_queue")
    layer.execute(
        "INSERT INTO fathom_calls (recording_id, title)"
        " SELECT 'r' || n, 'A call' FROM generate_series(1, %s) AS n",
        count,
    )


def _everywhere(server: EmbeddedPostgres) -> str:
    """Every row of every table of Dagster's storage: runs, events, ticks, tags, all of it."""
    with psycopg.connect(server.url(DAGSTER_DATABASE)) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        return "\n".join(
            str(row)
            for (name,) in names
            for row in connection.execute(f"SELECT * FROM {name}").fetchall()  # type: ignore[call-overload]  # noqa: S608
        )


def test_each_channel_hears_once_what_got_worse_and_that_all_is_well_again(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    with Mailbox() as mailbox:
        _urls(layer, SLACK_URL, DISCORD_URL, mailbox.url())
        assert alerting.tick() == []
        assert alerting.skipped is not None
        assert "healthy" in alerting.skipped
        _backlog(layer, 100)
        runs = alerting.tick()
        assert [run.success for run in runs] == [True] * 3
        alerting.ticks(3)
        _backlog(layer, 501)
        alerting.ticks(3)
        _backlog(layer, 99)
        alerting.ticks(3)
        assert mailbox.subjects == [WARNING, CRITICAL, WELL]
    for path in (SLACK, DISCORD):
        texts = hooks.texts(path)
        assert [t for text in texts for t in (WARNING, CRITICAL, WELL) if t in text] == [
            WARNING,
            CRITICAL,
            WELL,
        ]
    body = str(mailbox.messages[1].get_content())
    assert "pending_backlog: critical, was warning, not healthy since 20" in body
    assert "501 recordings waiting" in body
    assert len(re.findall(r"(?m)^- r\d+: pending", body)) == 3
    assert "What helps: " in body


def test_a_channel_that_is_down_hears_it_later_and_the_others_neither_wait_nor_hear_it_twice(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    port = free_port()
    _urls(layer, mail_url(port), SLACK_URL, DISCORD_URL)
    alerting.tick()
    _backlog(layer, 100)
    down, *up = alerting.tick()
    assert [run.success for run in up] == [True, True]
    said, _ = failure_of(down)
    assert re.fullmatch(r"mailto-\w{6} did not take the message: no connection.*", said)
    assert len(hooks.texts(SLACK)) == len(hooks.texts(DISCORD)) == 1
    # All is well again meanwhile; the mail server is still away.
    _backlog(layer, 0)
    alerting.ticks(9)
    assert len(hooks.texts(SLACK)) == len(hooks.texts(DISCORD)) == 2
    assert alerting.skipped is not None
    assert re.search(r"2 alerts wait for mailto-\w{6}, after 3 failed attempts", alerting.skipped)
    with Mailbox(port) as mailbox:
        alerting.ticks(4)
        assert mailbox.subjects == [WARNING, WELL]
        alerting.later(timedelta(hours=3))
        alerting.ticks(3)
        assert mailbox.subjects == [WARNING, WELL]
    assert len(hooks.texts(SLACK)) == len(hooks.texts(DISCORD)) == 2
    attempts = [key for key in alerting.asked if "mailto-" in key]
    assert len(attempts) == 5  # three of them failed


@pytest.mark.parametrize("broken", ["not migrated", "away"])
def test_an_alert_gets_through_when_the_database_does_not_work(
    layer: Layer, alerting: Alerting, hooks: Webhooks, empty_database_url: str, broken: str
) -> None:
    _urls(layer, SLACK_URL)
    alerting.tick()
    away = "postgresql://someone:hunter2hunter2@127.0.0.1:1/calls"
    url = empty_database_url if broken == "not migrated" else away
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        alerting.ticks(2)
    said = "embedding-assets init" if broken == "not migrated" else "DATABASE_URL"
    (text,) = hooks.texts()
    assert "Embedding Assets: critical: configuration" in text
    assert said in text
    assert MAIL_PASSWORD not in text
    alerting.ticks(2)
    assert WELL in hooks.texts()[1]


def test_a_tick_sends_nothing_by_itself(layer: Layer, alerting: Alerting, hooks: Webhooks) -> None:
    _urls(layer, SLACK_URL)
    _backlog(layer, 100)
    cursor = alerting.cursor
    for _ in range(3):
        alerting.cursor, alerting.asked = cursor, []
        assert len(alerting.requests()) == 1
    assert hooks.hooks == []


def test_without_channels_the_state_is_kept_and_told_once_there_are_some(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    _backlog(layer, 100)
    alerting.tick()
    assert alerting.skipped == (
        "ALERT_URLS is not set: nobody is told; last alert: warning (pending_backlog)"
    )
    alerting.later(timedelta(hours=2))
    _urls(layer, SLACK_URL)
    alerting.ticks(3)
    (text,) = hooks.texts()
    assert WARNING in text
    (since,) = re.findall(r"not healthy since (\S+ \S+) UTC", text)
    assert datetime.fromisoformat(f"{since}+00:00") < datetime.now(UTC) - timedelta(hours=2)


def test_a_url_that_is_wrong_is_shown_and_told_to_the_channels_that_work(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    _urls(layer, "slack://T0SECRET1!/B0SECRET2", SLACK_URL)
    runs = alerting.tick()
    assert [run.success for run in runs] == [True]
    (text,) = hooks.texts()
    assert "the 1st URL of ALERT_URLS (slack) is none that Apprise understands" in text
    assert alerting.tick() == []
    assert alerting.skipped is not None
    assert alerting.skipped.startswith("the 1st URL of ALERT_URLS (slack) is none")
    assert "T0SECRET1" not in alerting.skipped + text


def test_a_channel_that_was_taken_out_while_its_run_waited_fails_the_run_and_is_forgotten(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    _urls(layer, SLACK_URL)
    _backlog(layer, 100)
    (request,) = alerting.requests()
    _urls(layer, DISCORD_URL)
    said, _ = failure_of(alerting.run(request))
    assert re.fullmatch(r"ALERT_URLS has no channel slack-\w{6} any more", said)
    alerting.ticks(2)
    assert hooks.texts(SLACK) == []
    assert len(hooks.texts(DISCORD)) == 1
    assert list(json.loads(alerting.cursor or "")["alerts"]) == []


def test_what_waits_in_the_queue_is_waited_for_and_what_died_is_tried_again(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    _urls(layer, SLACK_URL)
    _backlog(layer, 100)
    (request,) = alerting.requests()
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "repository")
    run = layer.instance.create_run_for_job(
        layer.job("send_alert"),
        run_config=request.run_config,
        tags=dict(request.tags),
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=RemoteJobOrigin(origin, "send_alert"),
    )
    storage: Any = layer.instance.run_storage

    def make_it(status: str, age: timedelta) -> None:
        with storage.connect() as connection:
            connection.exec_driver_sql(
                "UPDATE runs SET status = %s, update_timestamp = now() AT TIME ZONE 'UTC' - %s,"
                " run_body = regexp_replace(run_body, 'DagsterRunStatus\\.\\w+', %s)"
                " WHERE run_id = %s",
                (status, age, f"DagsterRunStatus.{status}", run.run_id),
            )
        assert layer.dagster_run(run.run_id).status == dg.DagsterRunStatus(status)

    make_it("QUEUED", timedelta(days=1))
    alerting.later(timedelta(days=1))
    assert alerting.requests() == []
    make_it("STARTED", DEAD_AFTER - timedelta(minutes=1))
    assert alerting.requests() == []
    make_it("STARTED", DEAD_AFTER + timedelta(minutes=1))
    assert alerting.requests() == []  # it is known to have failed now, and due again in a minute
    alerting.ticks(3)
    assert len(hooks.texts()) == 1


def test_a_run_that_a_person_launches_again_counts(
    layer: Layer, alerting: Alerting, hooks: Webhooks
) -> None:
    _urls(layer, SLACK_URL)
    _backlog(layer, 100)
    hooks.status = 500
    (request,) = alerting.requests()
    assert not alerting.run(request).success
    hooks.status = None
    assert alerting.run(request).success
    alerting.later(timedelta(hours=2))
    alerting.ticks(5)
    assert len(hooks.texts()) == 1


def test_nothing_of_a_url_is_in_dagsters_storage_its_logs_or_its_output(
    layer: Layer,
    alerting: Alerting,
    hooks: Webhooks,
    server: EmbeddedPostgres,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hooks.status = 404
    mail = mail_url(free_port()).replace("//", f"//alerts:{MAIL_PASSWORD}@")
    _urls(layer, SLACK_URL, DISCORD_URL, mail, "slack://T0SECRET1!/B0SECRET2")
    alerting.tick()
    alerting.ticks(9)
    failed = layer.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert len(failed) == 3 * 3
    stored = _everywhere(server)
    # What is looked through does hold what was written.
    assert "answered with status 404" in stored
    assert stored.count("did not take the message") >= 9
    printed = "".join(capfd.readouterr())
    shown = stored + printed + str(alerting.cursor) + str(alerting.skipped)
    assert [secret for secret in SECRETS if secret.lower() in shown.lower()] == []


def test_alerts_come_first_in_the_queue_and_none_is_launched_as_lost_work(
    layer: Layer, alerting: Alerting, hooks: Webhooks, tick: Tick
) -> None:
    cursor = tick("relaunch_failed_recordings").cursor
    hooks.status = 500
    _urls(layer, SLACK_URL)
    _backlog(layer, 100)
    (failed,) = alerting.tick()
    assert not failed.success
    run = layer.dagster_run(failed.run_id)
    assert run.tags["dagster/priority"] == "10"
    assert run.tags[ALERT_TAG] == alerting.asked[0]
    data = tick("relaunch_failed_recordings", cursor)
    assert data.cursor != cursor  # it looked at the run
    assert not data.run_requests
