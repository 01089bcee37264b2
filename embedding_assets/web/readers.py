"""Who asks, and whether they have asked too often."""

import ipaddress
import logging
import threading
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import ConfigurationError, TransientError
from embedding_assets.engine.pace import MINUTE, Bucket
from embedding_assets.search.access import NOBODY
from embedding_assets.search.tokens import has_tokens, token_of
from embedding_assets.web.problems import TooManyError, UnauthorizedError

log = logging.getLogger("embedding_assets.web")

COOKIE = "embedding_assets_token"
# Without tokens somebody on this machine may ask, and nobody who comes through a proxy on it.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
MOST_REMEMBERED = 10_000  # readers whose pace is kept
LONGEST_NAME = 320  # characters: the longest e-mail address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks: the name of a token, a reader named by the proxy, or somebody on this machine."""

    name: str
    reader: str | None  # None: the role of the connection decides what is seen
    may_import: bool = False
    is_anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Doors:
    """By what people may come in.

    Attributes:
        allows_anonymous: whether somebody without a token is let in while there are no tokens;
            only where nobody but this machine can connect.
        proxy_header: in which a proxy names the reader; None: there is no such proxy.
        proxies: from where that header is believed.
        requests_per_minute: of one token, or of one reader that the proxy names.
    """

    allows_anonymous: bool
    proxy_header: str | None = None
    proxies: tuple[Network, ...] = ()
    requests_per_minute: int = 300


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, with spaces between them.

    Raises:
        ConfigurationError: one is none.
    """
    try:
        return tuple(ipaddress.ip_network(each, strict=False) for each in text.split())
    except ValueError as error:
        raise ConfigurationError(
            f"SERVE_TRUSTED_PROXIES: {error}; write addresses or networks such as 10.0.0.0/8, with"
            " spaces between them"
        ) from None


class Readers:
    """Knows who asks, from what came with the request; for several threads."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self._lock = threading.Lock()
        self._paces: dict[str, Bucket] = {}

    def who(self, database: Database, headers: Headers, peer: str | None) -> Who:
        """Who asks.

        Args:
            database: which knows the tokens.
            headers: of the request.
            peer: the address that the connection comes from.

        Raises:
            UnauthorizedError: nobody who may ask.
            TooManyError: they have asked too often.
            TransientError: it cannot be known now.
        """
        try:
            who = self._who(database, headers, peer)
        except (ConfigurationError, TransientError) as error:
            # A stranger learns nothing of the installation.
            log.warning("%s", error)
            raise TransientError("the database is not available") from None
        if not who.is_anonymous:
            self._count(who)
        return who

    def known(self, database: Database, token: str) -> Who:
        """Whose token this is.

        Raises:
            UnauthorizedError: nobody's.
        """
        found = token_of(database, token) if token else None
        if found is None:
            raise UnauthorizedError("the token is not known: it was revoked, or never given")
        return Who(found.name, found.reader, found.may_import)

    def _who(self, database: Database, headers: Headers, peer: str | None) -> Who:
        given = given_token(headers)
        if given:
            return self.known(database, given)
        header = self.doors.proxy_header
        named = headers.getlist(header) if header else []
        if named and self._is_proxy(peer):
            reader = named[0].strip().lower()
            # Twice: the proxy adds its own beside one that the client sent.
            if len(named) > 1 or not 0 < len(reader) <= LONGEST_NAME or not reader.isprintable():
                raise UnauthorizedError(f"{header} names nobody, or more than one reader")
            return Who(f"proxy:{reader}", reader)
        came_through_a_proxy = any(name in headers for name in FORWARDED)
        if not self.doors.allows_anonymous or came_through_a_proxy or has_tokens(database):
            raise UnauthorizedError(
                "a token is needed: send `Authorization: Bearer …` with one that"
                " `embedding-assets token add` gave"
            )
        return Who("this machine", NOBODY, may_import=True, is_anonymous=True)

    def _is_proxy(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.doors.proxies)

    def _count(self, who: Who) -> None:
        most = float(self.doors.requests_per_minute)
        with self._lock:
            now = time.monotonic()
            pace = self._paces.pop(who.name, None) or Bucket(most, most / MINUTE, most, now)
            self._paces[who.name] = pace  # the last that asked stand last
            while len(self._paces) > MOST_REMEMBERED:
                self._paces.pop(next(iter(self._paces)))
            delay = pace.delay(1.0, now)
            if delay > 0:
                raise TooManyError(
                    f"more than {most:g} requests a minute (SERVE_REQUESTS_PER_MINUTE)", delay
                )
            pace.level -= 1.0


def given_token(headers: Headers) -> str:
    """The token of the Authorization header, or else of the cookie; empty if there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""
