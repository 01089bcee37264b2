"""The page of how the system is: its checks, its numbers, and the last two weeks as a picture."""

import os
import threading
import time
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from embedding_assets.engine.database import Database
from embedding_assets.health.numbers import attempts_by_hour
from embedding_assets.health.system import system_health
from embedding_assets.search.access import sees_all_calls
from embedding_assets.web.readers import Who
from embedding_assets.web.rendering import Pages
from embedding_assets.web.service import Service

FRESH_SECONDS = 60.0  # of the picture: it takes a while to draw, and tells of hours


def routes(service: Service, pages: Pages) -> APIRouter:
    """The page and its picture."""
    router = APIRouter(include_in_schema=False)
    picture = _Picture(service)

    @router.get("/status")
    async def status(request: Request) -> HTMLResponse:
        def work(database: Database, who: Who) -> HTMLResponse:
            health = system_health(service.settings)
            # The reasons name calls.
            shows_reasons = sees_all_calls(database, who.reader)
            return pages.show("status.html", who=who, health=health, shows_reasons=shows_reasons)

        return await service.answer(request, work)

    @router.get("/status/trends.png")
    async def trends(request: Request) -> Response:
        drawn = await service.answer(request, lambda database, _: picture.of(database))
        return Response(drawn, media_type="image/png")

    return router


class _Picture:
    """The trends, drawn at most once a minute."""

    def __init__(self, service: Service) -> None:
        self._home = service.settings.home
        self._lock = threading.Lock()  # the library that draws is for one thread
        self._drawn: tuple[float, bytes] | None = None

    def of(self, database: Database) -> bytes:
        with self._lock:
            if self._drawn is None or time.monotonic() - self._drawn[0] > FRESH_SECONDS:
                self._drawn = time.monotonic(), self._draw(database)
            return self._drawn[1]

    def _draw(self, database: Database) -> bytes:
        # matplotlib keeps its list of fonts there, and warns where it cannot.
        os.environ.setdefault("MPLCONFIGDIR", str(self._home / "matplotlib"))
        # A second and many megabytes, which searching does not need.
        from embedding_assets.health import trends  # noqa: PLC0415

        now = datetime.now(UTC)
        since = trends.window(now)
        return trends.picture(trends.trends(attempts_by_hour(database, since), None, now))
