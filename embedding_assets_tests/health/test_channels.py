"""That each channel shows an alert as it is, that no secret is told, and none is waited for."""

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from embedding_assets.cli import main
from embedding_assets.health.channels import ChannelError, channels
from embedding_assets.health.findings import Health, Severity
from embedding_assets.health.judging import CHECKS
from embedding_assets.health.system import system_health
from embedding_assets.settings import Settings
from embedding_assets_tests.health.test_alerts import Clock, _finding
from embedding_assets_tests.loopback_receivers import (
    DISCORD_URL,
    SECRETS,
    SLACK_TOKEN,
    SLACK_URL,
    Mailbox,
    Webhooks,
    dripping,
    free_port,
    mail_url,
    redirect_plugins,
)

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
NAME = "Embedding Assets"
HEALTHY, WARNING, CRITICAL = Severity


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing of the developer's settings, and a database that is away."""
    monkeypatch.setattr("embedding_assets.settings.ENV_FILE", tmp_path / "no.env")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone@127.0.0.1:1/calls")
    return monkeypatch


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhooks]:
    with Webhooks() as hooks:
        redirect_plugins(monkeypatch, hooks.port)
        yield hooks


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """All that reaches the root logger; pytest's own fixture also hears what does not."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield texts
    root.setLevel(level)
    root.removeHandler(handler)


def _send(url: str, *, seconds: float = 20.0) -> None:
    (channel,) = channels(Settings(alert_urls=url)).channels  # type: ignore[arg-type]
    channel.send("A title", "A text.\n- one: ärger", CRITICAL, seconds=seconds)


def test_slack_discord_and_mail_show_title_and_text_as_they_are(hooks: Webhooks) -> None:
    _send(SLACK_URL)
    _send(DISCORD_URL)
    slack, discord = hooks.hooks
    assert slack.path == f"/services/{SLACK_TOKEN}"
    (attachment,) = slack.payload["attachments"]
    assert (attachment["title"], attachment["text"]) == ("A title", "A text.\n- one: ärger")
    assert discord.path.startswith("/api/webhooks/")
    assert discord.payload["content"] == "A title\r\nA text.\n- one: ärger"
    with Mailbox() as mailbox:
        _send(mailbox.url("a@example.com", "b@example.com"))
    assert mailbox.recipients == [["a@example.com"], ["b@example.com"]]
    assert mailbox.subjects == ["A title", "A title"]
    assert mailbox.messages[0].get_content().splitlines() == ["A text.", "- one: ärger"]


def test_nothing_of_a_url_is_logged_whatever_the_channel_does(
    hooks: Webhooks, logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("a library").debug("heard")
    for url in (SLACK_URL, DISCORD_URL, f"json://u:hunter2hunter2@127.0.0.1:{free_port()}/x"):
        for hooks.status in (None, 404):
            with contextlib.suppress(ChannelError):
                _send(url)
    shown = "".join([*logged, *capfd.readouterr()])
    assert "heard" in shown
    assert [secret for secret in SECRETS if secret in shown] == []


def test_a_message_of_the_greatest_length_fits_into_a_discord_message(hooks: Webhooks) -> None:
    clock = Clock("discord")
    clock.tick(Health(START, tuple(_finding(name, CRITICAL, ["x" * 200]) for name in CHECKS), None))
    (alert,) = clock.heard["discord"]
    (channel,) = channels(Settings(alert_urls=DISCORD_URL)).channels  # type: ignore[arg-type]
    channel.send(alert.title, alert.text, CRITICAL)
    (hook,) = hooks.hooks
    assert len(hook.payload["content"]) < 2_000


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("url", [SLACK_URL, DISCORD_URL, f"{SLACK_URL}?optional=yes"])
def test_a_channel_that_refuses_is_an_error_that_says_the_status(
    hooks: Webhooks, url: str, status: int
) -> None:
    hooks.status = status
    with pytest.raises(ChannelError, match=rf"^(slack|discord)-[0-9a-f]{{6}} .*status {status}$"):
        _send(url)


@pytest.mark.parametrize("url", ["json://127.0.0.1:{}/veryverysecret", mail_url(0)])
def test_a_channel_that_is_away_is_an_error(url: str) -> None:
    with pytest.raises(ChannelError, match="no connection, or no answer in time"):
        _send(url.format(free_port()).replace(":0?", f":{free_port()}?"))


def test_a_channel_that_never_answers_is_not_waited_for(hooks: Webhooks) -> None:
    hooks.is_silent = True
    with pytest.raises(ChannelError, match="no connection, or no answer in time"):
        _send(f"{SLACK_URL}?rto=0.2")


def test_a_channel_that_answers_without_an_end_is_not_waited_for() -> None:
    # Each byte comes in time, so no time limit of a socket ends this.
    with dripping() as port, pytest.raises(ChannelError, match=r"no answer within 0\.5 seconds"):
        _send(f"json://127.0.0.1:{port}/x", seconds=0.5)


def test_urls_are_split_at_white_space_only() -> None:
    urls = f"  {SLACK_URL}\n\t{DISCORD_URL} {mail_url(25, 'a@example.com', 'b@example.com')}\n"
    listed = channels(Settings(alert_urls=urls))  # type: ignore[arg-type]
    assert [name.partition("-")[0] for name in listed.names] == ["slack", "discord", "mailto"]
    assert listed.problems == ()
    twice = channels(Settings(alert_urls=f"{SLACK_URL} {SLACK_URL}"))  # type: ignore[arg-type]
    assert len(twice.names) == 1


def test_the_address_that_slack_itself_shows_is_taken_too() -> None:
    url = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"
    (name,) = channels(Settings(alert_urls=url)).names  # type: ignore[arg-type]
    assert name.startswith("slack-")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("slack://T0SECRET1!/B0SECRET2", "(slack) is none that Apprise understands"),
        ("veryveryverysecret3", "has no scheme such as slack://"),
        (f"{SLACK_URL},{DISCORD_URL}", "(slack) is more than one: put a space between"),
        ("https://example.com/hook/veryveryverysecret3", "(https) is none that Apprise"),
    ],
)
def test_a_url_that_is_wrong_is_named_by_its_place_and_the_others_work(
    url: str, said: str, capfd: pytest.CaptureFixture[str], logged: list[str]
) -> None:
    listed = channels(Settings(alert_urls=f"{DISCORD_URL} {url}"))  # type: ignore[arg-type]
    (problem,) = listed.problems
    assert problem.startswith("the 2nd URL of ALERT_URLS ")
    assert said in problem
    assert len(listed.channels) == 1
    shown = problem + repr(listed) + repr(logged) + "".join(capfd.readouterr())
    assert [secret for secret in SECRETS if secret in shown] == []


def test_a_url_that_is_wrong_makes_the_configuration_check_critical(
    database_url: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DATABASE_URL", database_url)
    assert system_health(Settings()).severity is HEALTHY
    environment.setenv("ALERT_URLS", f"{SLACK_URL} nonsense")
    (bad,) = [f for f in system_health(Settings()).findings if f.severity > HEALTHY]
    assert (bad.name, bad.severity) == ("configuration", CRITICAL)
    assert "2nd URL of ALERT_URLS" in bad.message


# The command.


def _alert_test(monkeypatch: pytest.MonkeyPatch, *urls: str) -> Result:
    monkeypatch.setenv("ALERT_URLS", " ".join(urls))
    return CliRunner().invoke(main, ["alert-test"])


def test_alert_test_says_which_channel_took_it(
    hooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mailbox() as mailbox:
        result = _alert_test(monkeypatch, SLACK_URL, DISCORD_URL, mailbox.url())
    assert result.exit_code == 0
    assert [line.partition("-")[0] for line in result.stdout.splitlines()] == [
        "slack",
        "discord",
        "mailto",
    ]
    assert result.stdout.count("took the message") == 3
    assert mailbox.subjects == [f"{NAME}: test"]
    assert len(hooks.hooks) == 2


def test_alert_test_names_each_channel_that_failed_and_goes_on(
    hooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks.status = 403
    with Mailbox() as mailbox:
        result = _alert_test(monkeypatch, SLACK_URL, mail_url(free_port()), mailbox.url())
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error: slack-")
    assert "status 403" in first
    assert second.startswith("error: mailto-")
    assert result.stdout.startswith("mailto-")
    assert len(mailbox.messages) == 1
    assert [secret for secret in SECRETS if secret in result.output] == []


def test_alert_test_is_exit_code_2_for_a_url_that_is_wrong_and_tries_the_others(
    hooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _alert_test(monkeypatch, "slack://T0SECRET1!/x", SLACK_URL)
    assert result.exit_code == 2
    assert "the 1st URL of ALERT_URLS (slack)" in result.stderr
    assert "took the message" in result.stdout
    assert "T0SECRET1" not in result.output


def test_alert_test_without_channels_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _alert_test(monkeypatch)
    assert result.exit_code == 2
    assert "ALERT_URLS is not set" in result.stderr


def test_a_cursor_holds_no_url(hooks: Webhooks) -> None:
    listed = channels(Settings(alert_urls=f"{SLACK_URL} {DISCORD_URL}"))  # type: ignore[arg-type]
    clock = Clock(*listed.names)
    clock.down = set(listed.names)
    clock.tick(dead_letters=CRITICAL)
    assert set(json.loads(clock.cursor or "")["queues"]) == set(listed.names)
    assert [secret for secret in SECRETS if secret in (clock.cursor or "")] == []
