"""Channels that alerts go to: what ALERT_URLS names, and how Apprise sends to it.

The URLs hold tokens and passwords, so whatever leaves this module names a channel by its kind and
a hash of its URL, and describes a failure without the words of Apprise.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any

from embedding_assets.engine.errors import TransientError
from embedding_assets.health.findings import Severity
from embedding_assets.settings import Settings

APPLICATION = "Embedding Assets"
SEND_SECONDS = 30.0  # longest that one message to one channel may take

_SCHEME = re.compile(r"([a-z0-9]{1,32})://", re.IGNORECASE)
_JOINED = re.compile(r"[,;][a-z0-9]{1,32}://", re.IGNORECASE)
_STATUS = re.compile(r"\berror=([1-5][0-9]{2})\b")
_ORDINALS = ("1st", "2nd", "3rd")


class ChannelError(TransientError):
    """A channel did not take a message; the text names it and holds nothing of its URL."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Somewhere that people read alerts; `name` is safe to show, as in `slack-3f2a91`."""

    name: str
    _service: Any  # an Apprise plugin, which shows its URL in its repr

    def __repr__(self) -> str:
        return f"Channel({self.name!r})"

    def send(
        self, title: str, text: str, severity: Severity, *, seconds: float = SEND_SECONDS
    ) -> None:
        """Sends one message of plain text; waits no longer than `seconds`.

        Raises:
            ChannelError: the channel did not take it, or not in time.
        """
        problem = _within(seconds, lambda: _send(self._service, title, text, severity))
        if problem is not None:
            raise ChannelError(f"{self.name} did not take the message: {problem}")


@dataclass(frozen=True, slots=True)
class Channels:
    """What ALERT_URLS names: the channels in its order, and what is wrong with the other URLs."""

    channels: tuple[Channel, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names."""
        return tuple(channel.name for channel in self.channels)

    def find(self, name: str) -> Channel | None:
        """The channel of this name; None if ALERT_URLS has it no longer."""
        return next((channel for channel in self.channels if channel.name == name), None)


def channels(settings: Settings) -> Channels:
    """Reads ALERT_URLS: Apprise's URLs with white space between them.

    Apprise itself also splits at commas; here a comma is part of a URL, as in a list of
    recipients.
    """
    if settings.alert_urls is None:
        return Channels()
    found: dict[str, Channel] = {}
    problems: list[str] = []
    for number, url in enumerate(settings.alert_urls.get_secret_value().split(), 1):
        service = None if _JOINED.search(url) else _service(url)
        if service is None:
            problems.append(_problem(number, url))
            continue
        name = f"{service.schema}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"
        found[name] = Channel(name, service)
    return Channels(tuple(found.values()), tuple(problems))


def _problem(number: int, url: str) -> str:
    place = f"the {_ordinal(number)} URL of ALERT_URLS"
    scheme = _SCHEME.match(url)
    if scheme is None:
        return f"{place} has no scheme such as slack:// or mailto://: mend it or take it out"
    kind = scheme[1].lower()
    if _JOINED.search(url):
        return f"{place} ({kind}) is more than one: put a space between URLs, not a comma"
    return (
        f"{place} ({kind}) is none that Apprise understands: compare it with"
        " https://appriseit.com/services, then mend it or take it out"
    )


def _ordinal(number: int) -> str:
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"


@cache
def _apprise() -> Any:
    """The library, with its logging switched off: its messages can contain parts of URLs."""
    import apprise  # noqa: PLC0415  (half a second that most commands need not spend)

    logger = logging.getLogger("apprise")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # below, it logs paths
    return apprise


def _service(url: str) -> Any:
    """The plugin for this URL; None if Apprise knows none, or the URL misses something."""
    apprise = _apprise()
    asset = apprise.AppriseAsset(
        app_id=APPLICATION,
        app_desc=APPLICATION,
        image_url_mask="",  # no picture from elsewhere
        # In the calling thread: Python would not exit while a thread of Apprise's pool hangs.
        async_mode=False,
        service_timeout=0,
    )
    return apprise.Apprise.instantiate(url, asset=asset)


def _send(service: Any, title: str, text: str, severity: Severity) -> str | None:
    """None once the message was taken, else why it was not."""
    apprise = _apprise()
    kinds = {
        Severity.HEALTHY: apprise.NotifyType.SUCCESS,
        Severity.WARNING: apprise.NotifyType.WARNING,
        Severity.CRITICAL: apprise.NotifyType.FAILURE,
    }
    sender = apprise.Apprise(service, asset=service.asset)
    result = sender.notify(
        title=title,
        body=text,
        notify_type=kinds[severity],
        body_format=apprise.NotifyFormat.TEXT,
    )
    # For a channel that its URL marks as optional, notify() succeeds always; the attempts do not.
    if any(bool(attempt) for sent in result for attempt in sent):
        return None
    return _reason(" ".join(entry.message for entry in result.logs()))


def _reason(logged: str) -> str:
    """What Apprise logged, reduced to what cannot contain a part of the URL."""
    status = _STATUS.search(logged)
    if status is not None:
        return f"its server answered with status {status[1]}"
    if "onnection error" in logged:
        return "no connection, or no answer in time"
    return "its server did not say why"


def _within(seconds: float, call: Callable[[], str | None]) -> str | None:
    """What the call returns; a thread that hangs is left behind, and ends with the process."""
    answer: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=lambda: answer.put(call()), daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return f"no answer within {seconds:g} seconds"
