"""Signing in to the pages with a token, which the browser keeps where no script reads it."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from embedding_assets.web.addresses import own_address
from embedding_assets.web.guard import LOOPBACK
from embedding_assets.web.problems import UnauthorizedError
from embedding_assets.web.readers import COOKIE
from embedding_assets.web.rendering import Pages
from embedding_assets.web.service import Service

COOKIE_SECONDS = 90 * 86_400


def routes(service: Service, pages: Pages) -> APIRouter:
    """The pages of signing in and out."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in")
    async def form(request: Request) -> HTMLResponse:
        return pages.show(
            "sign_in.html", who=None, error=None,
            next=own_address(request.query_params.get("next", "/")),
        )  # fmt: skip

    @router.post("/sign-in")
    async def sign_in(
        request: Request,
        token: Annotated[str, Form(max_length=200)] = "",
        place: Annotated[str, Form(alias="next", max_length=4000)] = "/",
    ) -> Response:
        place = own_address(place)
        try:
            await service.pool.run(lambda database: service.readers.known(database, token.strip()))
        except UnauthorizedError as error:
            return pages.show("sign_in.html", status=401, who=None, error=str(error), next=place)
        answer = RedirectResponse(place, 303)
        is_secure = request.url.hostname not in LOOPBACK
        answer.set_cookie(
            COOKIE, token.strip(), max_age=COOKIE_SECONDS, httponly=True, samesite="lax",
            secure=is_secure,
        )  # fmt: skip
        return answer

    @router.post("/sign-out")
    async def sign_out() -> Response:
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE)
        return answer

    return router
