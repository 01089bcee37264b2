"""A real HTTP server on 127.0.0.1 that speaks Fathom's API of meetings, and changes as told.

Ten meetings a page; cursors are page numbers, so a meeting that is deleted while somebody pages
makes another be skipped; each key sees what `seen_by` says; requests are limited by the minute,
those with transcripts more.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PAGE = 10


@dataclass
class Meeting:
    """A meeting as the recorder has it."""

    created_at: datetime
    document: dict[str, Any]  # without its transcript
    transcript: list[dict[str, Any]] | str | None
    seen_by: frozenset[str] = frozenset()  # keys; empty: all


@dataclass
class Limits:
    """How many requests a minute of each kind are answered, for each key."""

    with_transcripts: int = 30
    without: int = 60
    minute: float = 60.0  # seconds, shorter in tests
    _windows: dict[tuple[str, bool], tuple[float, int]] = field(default_factory=dict)

    def take(self, key: str, *, is_heavy: bool) -> tuple[bool, dict[str, str]]:
        """Whether a request is answered, and the headers that go with it."""
        limit, now = self.with_transcripts if is_heavy else self.without, time.monotonic()
        began, taken = self._windows.get((key, is_heavy), (now, 0))
        if now - began >= self.minute:
            began, taken = now, 0
        is_answered = taken < limit
        self._windows[key, is_heavy] = began, taken + is_answered
        reset = began + self.minute - now
        headers = {
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(max(0, limit - taken - is_answered)),
            "RateLimit-Reset": f"{reset:.3f}",
        }
        if not is_answered:
            headers["Retry-After"] = f"{reset:.3f}"
        return is_answered, headers


class LoopbackFathom:
    """The server, running while the context lasts. Change what it has under `lock`."""

    def __init__(self, keys: Iterable[str], limits: Limits | None = None) -> None:
        self.keys = set(keys)
        self.refused: set[str] = set()
        self.meetings: dict[str, Meeting] = {}
        self.limits = limits or Limits(with_transcripts=10**6, without=10**6)
        self.now = datetime.now(UTC)
        self.lock = threading.RLock()
        self.answered: Counter[str] = Counter()  # by key, and "limited"
        self.after_page: Callable[[], None] = lambda: None
        self.last_query: dict[str, str] = {}
        self.failures: list[int | bytes] = []  # statuses or bodies of the next answers
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                status, headers, body = server.answer(self.path, self.headers.get("X-Api-Key", ""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                server.after_page()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """What FATHOM_BASE_URL takes."""
        return f"http://127.0.0.1:{self._server.server_port}/external/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(
        self,
        id_: str,
        created_at: datetime,
        words: str | None,
        *,
        seen_by: Iterable[str] = (),
        **document: Any,
    ) -> None:
        """Adds a meeting, with a transcript of these words a turn each, or without any."""
        said = None if words is None else transcript(words)
        given = {
            "recording_id": int(id_),
            "title": f"Meeting {id_}",
            "url": f"https://fathom.video/calls/{id_}",
            "created_at": iso(created_at),
            "recording_start_time": iso(created_at - timedelta(hours=1)),
            "recording_end_time": iso(created_at),
            "transcript_language": "en",
            "meeting_type": "external",
            "shared_with": "team",
            "recorded_by": {"name": "Ann Bee", "email": "ann@example.org", "team": "Sales"},
            "calendar_invitees": [
                {"name": "Ann Bee", "email": "ann@example.org", "is_external": False},
                {"name": "Cee Dee", "email": "cee@example.com", "is_external": True},
            ],
            **document,
        }
        with self.lock:
            self.meetings[id_] = Meeting(created_at, given, said, frozenset(seen_by))

    def visible(self, key: str) -> dict[str, Meeting]:
        """What a key sees now."""
        with self.lock:
            return {
                id_: each
                for id_, each in self.meetings.items()
                if each.created_at <= self.now and (not each.seen_by or key in each.seen_by)
            }

    def answer(self, target: str, key: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        place = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        self.last_query = query
        if place.path != "/external/v1/meetings":
            return 404, {}, b"{}"
        if key not in self.keys or key in self.refused:
            return 401, {}, json.dumps({"error": f"invalid key {key}"}).encode()
        with self.lock:
            is_heavy = query.get("include_transcript") == "true"
            is_answered, headers = self.limits.take(key, is_heavy=is_heavy)
            if not is_answered:
                self.answered["limited"] += 1
                return 429, headers, b'{"error": "too many requests"}'
            if self.failures:
                failure = self.failures.pop(0)
                if isinstance(failure, int):
                    return failure, headers, b"<html>an error</html>"
                return 200, headers, failure
            self.answered[key] += 1
            return 200, headers, json.dumps(self._page(query, key, is_heavy=is_heavy)).encode()

    def _page(self, query: dict[str, str], key: str, *, is_heavy: bool) -> dict[str, Any]:
        after, before = (
            datetime.fromisoformat(query[name]) for name in ("created_after", "created_before")
        )
        found = sorted(
            (each for each in self.visible(key).values() if after < each.created_at < before),
            key=lambda each: each.created_at,
            reverse=True,
        )
        number = int(query.get("cursor", "1"))
        start = (number - 1) * PAGE
        items = [
            {**each.document, "transcript": each.transcript if is_heavy else None}
            for each in found[start : start + PAGE]
        ]
        has_more = len(found) > start + PAGE
        return {
            "limit": PAGE, "next_cursor": str(number + 1) if has_more else None, "items": items
        }  # fmt: skip


def transcript(words: str) -> list[dict[str, Any]]:
    """A transcript as Fathom writes it: a turn for each sentence."""
    return [
        {
            "speaker": {
                "display_name": ("Ann Bee", "Cee Dee")[number % 2],
                "matched_calendar_invitee_email": ("ann@example.org", "cee@example.com")[
                    number % 2
                ],
            },
            "text": sentence,
            "timestamp": f"00:{number // 6:02}:{number % 6 * 10:02}",
        }
        for number, sentence in enumerate(words.split(". "))
    ]


def iso(moment: datetime) -> str:
    """As Fathom writes moments."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
