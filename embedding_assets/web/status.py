"""The page of how the system is: its checks, its numbers, and the last two weeks as a picture."""

import os
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from embedding_assets.engine.database import Database
from embedding_assets.health.numbers import attempts_by_hour
from embedding_assets.health.system import health_of
from embedding_assets.search.access import sees_all_calls
from embedding_assets.settings import Settings
from embedding_assets.web.fresh import Fresh
from embedding_assets.web.readers import Who
from embedding_assets.web.rendering import Pages
from embedding_assets.web.service import Service

CHECKED_SECONDS = 10.0
DRAWN_SECONDS = 60.0  # the picture takes a while to draw, and tells of hours


def routes(service: Service, pages: Pages) -> APIRouter:
    """The page and its picture."""
    router = APIRouter(include_in_schema=False)
    checks = Fresh(CHECKED_SECONDS, lambda database: health_of(service.settings, database))
    picture = Fresh(DRAWN_SECONDS, lambda database: _draw(service.settings, database))

    @router.get("/status")
    async def status(request: Request) -> HTMLResponse:
        def work(database: Database, who: Who) -> HTMLResponse:
            health = checks.of(database)
            # The reasons name calls.
            shows_reasons = sees_all_calls(database, who.reader)
            return pages.show("status.html", who=who, health=health, shows_reasons=shows_reasons)

        return await service.answer(request, work, is_slow=True)

    @router.get("/status/trends.png")
    async def trends(request: Request) -> Response:
        drawn = await service.answer(
            request, lambda database, _: picture.of(database), is_slow=True
        )
        return Response(drawn, media_type="image/png")

    return router


def _draw(settings: Settings, database: Database) -> bytes:
    # matplotlib keeps its list of fonts there, and warns where it cannot.
    os.environ.setdefault("MPLCONFIGDIR", str(settings.home / "matplotlib"))
    # A second and many megabytes, which searching does not need.
    from embedding_assets.health import trends  # noqa: PLC0415

    now = datetime.now(UTC)
    since = trends.window(now)
    return trends.picture(trends.trends(attempts_by_hour(database, since), None, now))
