"""The pages where people search, list calls and read one."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from embedding_assets.engine.database import Database
from embedding_assets.search import calls
from embedding_assets.search.access import reading
from embedding_assets.search.search import Answer, Filters
from embedding_assets.web import models
from embedding_assets.web.addresses import Asked, call_address, seconds_of
from embedding_assets.web.problems import NotFoundError, seen
from embedding_assets.web.readers import Who
from embedding_assets.web.rendering import Pages
from embedding_assets.web.service import Service

HITS = 20
HITS_OF_A_CALL = 100
CALLS = 50
NEWEST = 5


def routes(service: Service, pages: Pages) -> APIRouter:
    """The pages' routes."""
    router = APIRouter(include_in_schema=False)
    _add_search(router, service, pages)
    _add_calls(router, service, pages)
    return router


def _add_search(router: APIRouter, service: Service, pages: Pages) -> None:
    async def found(request: Request, template: str) -> HTMLResponse:
        asked = Asked.of(request.query_params)

        def work(database: Database, who: Who) -> HTMLResponse:
            values: dict[str, Any] = {"asked": asked, "who": who, "answer": None, "newest": []}
            if asked.question:
                values["answer"] = service.search(
                    database, who, asked.question, filters=asked.filters, limit=HITS
                )
            with reading(database, who.reader, service.seconds) as connection:
                if template == "search.html":
                    values["platforms"] = calls.platforms(connection)
                if not asked.question:
                    values["newest"] = calls.calls(connection, asked.filters, limit=NEWEST)
            return pages.show(template, **values)

        return await service.answer(request, work)

    @router.get("/")
    async def search(request: Request) -> HTMLResponse:
        return await found(request, "search.html")

    @router.get("/results")
    async def results(request: Request) -> HTMLResponse:
        """The part of the page that changes as one types."""
        return await found(request, "results.html")


def _add_calls(router: APIRouter, service: Service, pages: Pages) -> None:
    @router.get("/calls")
    async def listed(request: Request) -> HTMLResponse:
        asked = Asked.of(request.query_params)
        before = models.place_of(request.query_params.get("cursor"))

        def work(database: Database, who: Who) -> HTMLResponse:
            with reading(database, who.reader, service.seconds) as connection:
                found = calls.calls(connection, asked.filters, limit=CALLS + 1, before=before)
                platforms = calls.platforms(connection)
            more = models.next_cursor(found, CALLS)
            return pages.show(
                "calls.html",
                asked=asked, who=who, calls=found[:CALLS], platforms=platforms, more=more,
            )  # fmt: skip

        return await service.answer(request, work)

    @router.get("/calls/{recording_id:path}")
    async def call(request: Request, recording_id: str) -> Response:
        if "\0" in recording_id:
            raise NotFoundError("there is no call with such an id")
        asked = Asked.of(request.query_params)
        at = seconds_of(request.query_params.get("at", ""))

        def work(database: Database, who: Who) -> Response:
            shown = _read_call(service, database, who, recording_id, asked)
            if at is not None:
                return RedirectResponse(shown.address_at(at, asked), 303)
            return pages.show("call.html", asked=asked, who=who, shown=shown)

        return await service.answer(request, work)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A call's page: what was said, and the places that answer the question."""

    call: calls.Call
    turns: list[calls.Said]
    answer: Answer | None

    @property
    def places(self) -> list[tuple[int, float | None]]:
        """Position and time of the turns that answer, in the order in which they were said."""
        hits = sorted(self.answer.hits, key=lambda hit: hit.chunk_index) if self.answer else []
        return list({hit.turn.position: (hit.turn.position, hit.said_at) for hit in hits}.values())

    def address_at(self, seconds: float, asked: Asked) -> str:
        """The address of the turn that was being said then."""
        began = [
            turn.position
            for turn in self.turns
            if turn.start_seconds is not None and turn.start_seconds <= seconds
        ]
        anchor = f"#p{began[-1]}" if began else ""
        return asked.address(call_address(self.call.recording_id)) + anchor


def _read_call(
    service: Service, database: Database, who: Who, recording_id: str, asked: Asked
) -> _Shown:
    """A call with its transcript, in which the places that answer the question are marked."""
    answer = None
    if asked.question:
        answer = service.search(
            database, who, asked.question, filters=Filters(recordings=[recording_id]),
            limit=HITS_OF_A_CALL, per_recording=HITS_OF_A_CALL,
        )  # fmt: skip
    marks = {hit.chunk_index: hit.marks for hit in answer.hits} if answer else {}
    with reading(database, who.reader, service.seconds) as connection:
        call, turns = seen(calls.transcript(connection, recording_id, marks=marks))
    return _Shown(call, turns, answer)
