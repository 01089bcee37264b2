"""Receivers of alerts on 127.0.0.1: web hooks as Slack and Discord have them, and a mail server.

In a test: `with Webhooks() as hooks: ...`, `with Mailbox() as mailbox: ...`. A receiver that is
down refuses connections on the port it will have when it is up.
"""

import email
import email.policy
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

SLACK_TOKEN = "T0SECRET1/B0SECRET2/veryveryverysecret3"
SLACK_URL = f"slack://{SLACK_TOKEN}"
DISCORD_TOKEN = "417429632418316298/JHZ7lQml277CDHmQKMHI8qBe7bk2ZwO5UKjCiOAF7711o33MyqU344"
DISCORD_URL = f"discord://{DISCORD_TOKEN}"
MAIL_PASSWORD = "hunter2hunter2"
SECRETS = (*SLACK_TOKEN.split("/"), *DISCORD_TOKEN.split("/"), MAIL_PASSWORD)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Hook:
    """One message that a web hook was sent."""

    path: str
    payload: dict[str, Any]

    @property
    def text(self) -> str:
        """All that people read of it."""
        return json.dumps(self.payload, ensure_ascii=False)


class Webhooks:
    """A server that takes what Slack (`/services/…`) and Discord (`/api/webhooks/…`) take."""

    def __init__(self, port: int = 0) -> None:
        self.hooks: list[Hook] = []
        self.status: int | None = None  # what to answer instead of taking the message
        self.is_silent = False  # accept the connection, and never answer
        self._released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def texts(self, path: str = "") -> list[str]:
        """What was taken, in order, by hooks whose path starts so."""
        return [hook.text for hook in self.hooks if hook.path.startswith(path)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if self.is_silent:
            self._released.wait()
            return
        if self.status is not None:
            request.send_response(self.status)
            request.end_headers()
            return
        self.hooks.append(Hook(request.path, json.loads(body)))
        # Slack says ok, Discord says nothing, with a status of its own.
        request.send_response(204 if request.path.startswith("/api/webhooks/") else 200)
        request.end_headers()
        if not request.path.startswith("/api/webhooks/"):
            request.wfile.write(b"ok")


@contextmanager
def dripping() -> Iterator[int]:
    """The port of a server that answers a byte every tenth of a second, without an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.1):
                    connection.sendall(b"x")

        threading.Thread(target=drip, daemon=True).start()
        yield int(server.getsockname()[1])
        done.set()


def redirect_plugins(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Apprise's own Slack and Discord plugins, with this port in place of the services' hosts.

    Real: how their URLs are read, the requests they make, how they judge the answers. Redirected:
    the two constants that hold `https://hooks.slack.com` and `https://discord.com`.
    """
    from apprise.plugins.discord import NotifyDiscord  # noqa: PLC0415
    from apprise.plugins.slack import NotifySlack  # noqa: PLC0415

    base = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(NotifySlack, "webhook_url", f"{base}/services")
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"{base}/api/webhooks")


class Mailbox:
    """A mail server; a password is asked for and never looked at."""

    def __init__(self, port: int = 0) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=port or free_port())

    async def handle_DATA(  # noqa: N802  (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    @property
    def subjects(self) -> list[str]:
        """Of the mails in order."""
        return [str(message["Subject"]) for message in self.messages]

    def url(self, *recipients: str) -> str:
        """What ALERT_URLS takes."""
        return mail_url(self._controller.port, *recipients)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


def mail_url(port: int, *recipients: str) -> str:
    """A mailto URL of a server without TLS on this port."""
    to = ",".join(recipients or ["ops@example.com"])
    return f"mailto://127.0.0.1:{port}?from=alerts@example.com&to={to}&mode=insecure"
