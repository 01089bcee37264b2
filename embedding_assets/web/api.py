"""The JSON API: search, calls, transcripts, and what recorders and programs bring."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import (
    EmbeddingAssetsError,
    InvalidInputError,
    TransientError,
)
from embedding_assets.recorders.importing import import_meeting
from embedding_assets.recorders.webhooks import FathomWebhook, Receipt
from embedding_assets.search import calls
from embedding_assets.search.access import reading
from embedding_assets.search.search import Mode
from embedding_assets.web import models
from embedding_assets.web.metrics import CONTENT_TYPE, Metrics
from embedding_assets.web.problems import (
    MEDIA_TYPE,
    NO_CALL,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
    seen,
)
from embedding_assets.web.readers import Who
from embedding_assets.web.service import Service

log = logging.getLogger("embedding_assets.web")

_SCHEMA = models.Problem.model_json_schema()
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
    for status, description in {
        401: "It is not known who asks.",
        403: "Who asks may not do that, or asks by a host name that is not known here.",
        404: "There is no such thing for who asks.",
        413: "The body is too long.",
        422: "Something is not understood; `detail` names it.",
        429: "Too many requests; `Retry-After` says when to come again.",
        503: "The database or the model is away, or too many ask at once.",
        504: "The database took too long.",
    }.items()
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": models.Meeting.model_json_schema()}},
    }
}


def routes(service: Service, webhooks: Callable[[str], FathomWebhook | None]) -> APIRouter:
    """The API's routes.

    Args:
        service: answers.
        webhooks: what receives for the name of a Fathom key; None: nothing does.
    """
    router = APIRouter(responses=PROBLEMS)
    _add_finding(router, service)
    _add_reading(router, service)
    _add_receiving(router, service, webhooks)
    _add_probes(router, service)
    return router


def _add_finding(router: APIRouter, service: Service) -> None:
    @router.get("/api/search", tags=["finding"])
    async def search(
        request: Request, query: Annotated[models.SearchQuery, Query()]
    ) -> models.SearchAnswer:
        """Finds where something was said."""

        def work(database: Database, who: Who) -> models.SearchAnswer:
            answer = service.search(
                database,
                who,
                query.q,
                mode=Mode(query.mode),
                filters=query.filters(),
                limit=query.limit,
                per_recording=query.per_recording,
                context=query.context,
            )
            hits = [models.Hit.of(hit) for hit in answer.hits]
            return models.SearchAnswer(mode=answer.mode, notice=answer.notice, hits=hits)

        return await service.answer(request, work)

    @router.get("/api/recordings", tags=["finding"])
    async def recordings(
        request: Request, query: Annotated[models.PageQuery, Query()]
    ) -> models.RecordingsPage:
        """Lists calls, the newest first."""
        before = models.place_of(query.cursor)

        def work(database: Database, who: Who) -> models.RecordingsPage:
            with reading(database, who.reader, service.seconds) as connection:
                found = calls.calls(
                    connection, query.filters(), limit=query.limit + 1, before=before
                )
            return models.RecordingsPage(
                recordings=[models.Recording.of(call) for call in found[: query.limit]],
                next_cursor=models.next_cursor(found, query.limit),
            )

        return await service.answer(request, work)


def _add_reading(router: APIRouter, service: Service) -> None:
    # Before the shorter path, which would take this one for an id.
    @router.get("/api/recordings/{recording_id:path}/transcript", tags=["finding"])
    async def transcript(
        request: Request, recording_id: str, query: Annotated[models.TranscriptQuery, Query()]
    ) -> models.TranscriptPage:
        """Gives what was said in a call, turn by turn."""

        def work(database: Database, who: Who) -> models.TranscriptPage:
            with reading(database, who.reader, service.seconds) as connection:
                _, turns = seen(
                    calls.transcript(connection, _id(recording_id), window=query.window())
                )
            after = turns[query.limit].position if len(turns) > query.limit else None
            return models.TranscriptPage(
                recording_id=recording_id,
                turns=[models.Turn.of(turn) for turn in turns[: query.limit]],
                next_position=after,
            )

        return await service.answer(request, work)

    @router.get("/api/recordings/{recording_id:path}", tags=["finding"])
    async def recording(request: Request, recording_id: str) -> models.Recording:
        """Tells what is known of a call."""

        def work(database: Database, who: Who) -> models.Recording:
            with reading(database, who.reader, service.seconds) as connection:
                return models.Recording.of(seen(calls.call(connection, _id(recording_id))))

        return await service.answer(request, work)


def _add_receiving(
    router: APIRouter, service: Service, webhooks: Callable[[str], FathomWebhook | None]
) -> None:
    # Who asks is known before a body is read: it may be long.
    @router.post("/api/import/meeting", tags=["receiving"], openapi_extra=BODY)
    async def import_one(request: Request) -> models.Imported:
        """Stores a call of a recorder that has no format here. Again, it changes nothing."""
        who = await service.who(request)
        # A cookie comes along with whatever a page asks for; a header does not.
        if not who.may_import or ("authorization" not in request.headers and not who.is_anonymous):
            raise ForbiddenError(
                "this token may not import: make one with `embedding-assets token add --may-import`"
            )
        # A page of another site can send other types without asking.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise InvalidInputError("the Content-Type must be application/json")
        async with service.body(request) as body:
            return await service.source_pool.run(lambda database: _import(database, who, body))

    @router.post("/webhooks/fathom/{key}", tags=["receiving"])
    async def fathom(request: Request, key: str) -> models.Received:
        """Takes what Fathom sends when a meeting can be read; it is believed by its signature."""
        webhook = webhooks(key)
        if webhook is None:
            raise NotFoundError("no such webhook: FATHOM_WEBHOOK_SECRETS names no secret for it")
        headers = dict(request.headers)
        async with service.body(request) as body:
            delivery = await service.source_pool.run(
                lambda database: webhook.receive(database, headers, body)
            )
        if delivery.receipt is Receipt.UNSIGNED:
            raise UnauthorizedError("not signed by the secret of this webhook, or not now")
        if delivery.receipt is Receipt.UNREADABLE:
            raise InvalidInputError("signed, but no meeting that can be read")
        return models.Received(receipt=str(delivery.receipt))


def _add_probes(router: APIRouter, service: Service) -> None:
    metrics = Metrics()

    @router.get("/healthz", tags=["probes"])
    async def healthz() -> models.Status:
        """Says that this process answers."""
        return models.Status(status="ok")

    @router.get("/readyz", tags=["probes"])
    async def readyz() -> models.Status:
        """Says that it can search: the database is there, with the schema that it needs."""
        try:
            await service.pool.run(lambda database: database.check_schema())
        except EmbeddingAssetsError as error:
            log.warning("%s", error)
            raise TransientError("it cannot search now; the log says why") from None
        return models.Status(status="ready")

    @router.get(
        "/metrics",
        tags=["probes"],
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {}}}},
    )
    async def prometheus(request: Request) -> Response:
        """Shows figures for Prometheus."""
        text = await service.answer(
            request, lambda database, _: metrics.text(database), is_slow=True
        )
        return Response(text, media_type=CONTENT_TYPE)


def _import(database: Database, who: Who, body: bytes) -> models.Imported:
    try:
        given = models.Meeting.model_validate_json(body)
    except ValidationError as error:
        # Without the values: they are what was said.
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    report = import_meeting(
        database,
        given.source,
        given.external_id,
        given.meeting,
        importer=None if who.is_anonymous else who.reader,
    )
    if report.rejected:
        raise InvalidInputError("; ".join(str(each) for each in report.rejected))
    return models.Imported(
        recording_id=next(iter(report.recording_ids), None),
        outcome="imported" if report.imported else "unchanged",
        notices=[str(notice) for notice in report.notices],
    )


def _id(recording_id: str) -> str:
    """An id that Postgres can look for."""
    if "\0" in recording_id:
        raise NotFoundError(NO_CALL)
    return recording_id
