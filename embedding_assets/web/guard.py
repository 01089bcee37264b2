"""What holds for every request and answer: host, origin, size, headers, and a line in the log."""

import ipaddress
import logging
import time
import traceback
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.web.problems import MEDIA_TYPE, ForbiddenError, TooLargeError, problem_of

log = logging.getLogger("embedding_assets.web")

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_BYTES = 16 * 1024 * 1024  # of a body: a long call with its words is some 5 MB
PROBES = ("/healthz", "/readyz")  # are asked by any name, and tell nothing
STATIC = "/static/"
FIGURES = "/metrics"  # is often asked by address

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # A question in the address is no other site's business. (With `no-referrer`, browsers would
    # send forms from an origin `null`.)
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what is asked of a known host, by no other site's page, in a bounded body.

    A page of another site must not ask in a visitor's name, nor by a name of its own that it has
    pointed at this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self.app = app
        # Of an IPv6 address, every part is the host's; elsewhere a colon is before the port.
        self.hosts = {host.lower() if host.count(":") > 1 else _name(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        is_static = scope["path"].startswith(STATIC)
        said = {**HEADERS, "cache-control": "no-cache"} if is_static else HEADERS
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in said.items()
                        if name.encode() not in given
                    ),
                ]
            await send(message)

        is_head = scope["method"] == "HEAD"

        async def answer_to_head(message: Message) -> None:
            body = {"body": b""} if message["type"] == "http.response.body" else {}
            await answer({**message, **body})

        try:
            self._check(scope["path"], headers)
            asked = {**scope, "method": "GET"} if is_head else scope
            await self.app(asked, _bounded(receive), answer_to_head if is_head else answer)
        except Exception as error:
            if status:
                raise
            document, extra = problem_of(_told(error, scope))
            refusal = JSONResponse(document, document["status"], extra, MEDIA_TYPE)
            await refusal(scope, receive, answer)
        finally:
            is_dull = status < 400 and (is_static or scope["path"] in PROBES)
            # Never the query: a question is private.
            log.log(
                logging.DEBUG if is_dull else logging.INFO,
                "%s %s %s %d ms", scope["method"], _place(scope), status,
                (time.monotonic() - started) * 1000,
            )  # fmt: skip

    def _check(self, path: str, headers: dict[str, str]) -> None:
        host = _name(headers.get("host", ""))
        is_watched = path in PROBES or (path == FIGURES and _is_address(host))
        if host not in self.hosts and not is_watched:
            raise ForbiddenError(
                "this host name is not known here: add it to SERVE_HOSTS, or use one of those"
            )
        origin = headers.get("origin")
        if origin is not None and _name(origin.partition("://")[2]) not in self.hosts:
            raise ForbiddenError("a page of another site may not ask here")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MOST_BYTES:
            raise TooLargeError(f"the body has more than {MOST_BYTES:,} bytes")


def _told(error: Exception, scope: Scope) -> EmbeddingAssetsError:
    """What the client is told; of an error that nobody foresaw, the log says where it was."""
    if isinstance(error, EmbeddingAssetsError):
        return error
    # Without its text, which may quote what was said.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s at %s\n%s", type(error).__name__, _place(scope), frames)
    return EmbeddingAssetsError("it failed here; the log says where")


def _place(scope: Scope) -> str:
    """The path by its pattern, without what it names."""
    route = scope.get("route")
    return getattr(route, "path", None) or ("/mcp" if scope["path"].startswith("/mcp") else "?")


def _name(netloc: str) -> str:
    """The host's name without its port, in small letters."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bounded(receive: Receive) -> Receive:
    """A body that says no length is counted as it comes."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MOST_BYTES:
            raise TooLargeError(f"the body has more than {MOST_BYTES:,} bytes")
        return message

    return bounded
