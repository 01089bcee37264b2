"""One application of pages, API and MCP, and the server that runs it."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from embedding_assets.engine.errors import (
    ConfigurationError,
    EmbeddingAssetsError,
    InvalidInputError,
)
from embedding_assets.recorders.webhooks import FathomWebhooks
from embedding_assets.search.tokens import has_tokens
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings
from embedding_assets.web import agents, api, pages, signing_in, status
from embedding_assets.web.guard import LOOPBACK, Guard
from embedding_assets.web.problems import MEDIA_TYPE, NotFoundError, problem_of
from embedding_assets.web.readers import Doors, Readers, networks
from embedding_assets.web.rendering import Pages
from embedding_assets.web.service import Service
from embedding_assets.wiring import build_embedder, fathom_webhooks

log = logging.getLogger("embedding_assets.web")

STATIC = Path(__file__).parent / "static"
MACHINES = ("/api/", "/webhooks/", "/mcp", "/healthz", "/readyz", "/metrics")
"""Paths whose errors are documents; elsewhere they are pages."""


def build_app(service: Service, hosts: set[str], webhooks: FathomWebhooks) -> FastAPI:
    """The application.

    Args:
        service: answers.
        hosts: names by which it may be asked.
        webhooks: what receives Fathom's deliveries.
    """
    shown = Pages()
    mcp = agents.OverHttp(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.warm_up()
        try:
            async with mcp.running():
                yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Embedding Assets",
        version=version("embedding-assets"),
        summary="Search what was said in calls.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(api.routes(service, webhooks))
    app.include_router(pages.routes(service, shown))
    app.include_router(signing_in.routes(service, shown))
    app.include_router(status.routes(service, shown))
    app.mount("/static", StaticFiles(directory=STATIC))
    # No session is kept, so that nothing is ever sent by itself, which is what GET would wait for.
    app.router.routes.append(Route("/mcp", endpoint=mcp, methods=["POST"]))
    _add_errors(app, shown)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _add_errors(app: FastAPI, shown: Pages) -> None:
    def answer(request: Request, error: EmbeddingAssetsError) -> Response:
        if not request.url.path.startswith(MACHINES):
            return shown.error(request, error)
        document, headers = problem_of(error)
        return JSONResponse(document, document["status"], headers, MEDIA_TYPE)

    @app.exception_handler(EmbeddingAssetsError)
    async def failed(request: Request, error: EmbeddingAssetsError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Without the values: they may be what somebody asked.
        problems = [
            {"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]}
            for each in error.errors()
        ]
        first = problems[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        told = InvalidInputError(f"{place}: {first['msg']}")
        if not request.url.path.startswith(MACHINES):
            return shown.error(request, told)
        document, _ = problem_of(told)
        return JSONResponse({**document, "errors": problems}, 422, None, MEDIA_TYPE)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(request, NotFoundError("there is no such page"))
        document = {
            "type": "about:blank", "title": error.detail, "status": error.status_code,
            "detail": error.detail,
        }  # fmt: skip
        return JSONResponse(document, error.status_code, error.headers, MEDIA_TYPE)


def prepare(
    settings: Settings, host: str, port: int, started: Callable[[str], None]
) -> uvicorn.Server:
    """A server that runs until it is interrupted, or told that it should exit.

    Args:
        settings: of the installation.
        host: the address to listen at; other than loopback only with tokens or a proxy.
        port: 0 takes one that is free.
        started: gets the address once it answers.

    Raises:
        ConfigurationError: a setting is wrong or missing, or nobody would have to say who they are,
            or it cannot listen there.
        EmbeddingAssetsError: the database is away.
    """
    is_local = host in LOOPBACK
    hosts = set(settings.serve_hosts.lower().split())
    wrong = next((name for name in hosts if set(name) & set("/,*")), None)
    if wrong is not None:
        raise ConfigurationError(
            f"SERVE_HOSTS: {wrong} is no host name; write names such as calls.example.org, with"
            " spaces between them"
        )
    doors = Doors(
        allows_anonymous=is_local and not hosts and settings.serve_proxy_header is None,
        proxy_header=settings.serve_proxy_header,
        proxies=networks(settings.serve_trusted_proxies),
        requests_per_minute=settings.serve_requests_per_minute,
    )
    webhooks = fathom_webhooks(settings)
    embedder = build_embedder(settings, is_for_search=True)
    with open_database(settings) as database:
        if not is_local and doors.proxy_header is None and not has_tokens(database):
            raise ConfigurationError(
                f"without tokens anybody who reaches {host} could read every call: make one with"
                " `embedding-assets token add`, or listen on 127.0.0.1"
            )
    if not is_local and not hosts:
        raise ConfigurationError(
            f"SERVE_HOSTS is not set: name the hosts by which {host} is reached, such as"
            " calls.example.org"
        )
    service = Service(settings, embedder, Readers(doors), connections=settings.serve_connections)
    app = build_app(service, hosts | (set(LOOPBACK) if is_local else set()), webhooks)
    # No access log: its lines hold questions. The guard writes its own.
    config = uvicorn.Config(
        app, host=host, port=port, access_log=False, log_level="warning", proxy_headers=False,
        server_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    return _Server(config, _listening(host, port), started)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except socket.gaierror:
        raise ConfigurationError(f"--host {host}: this is no address of this machine") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(
            f"cannot listen on port {port} of {host} ({reason}): choose another with --port"
        ) from None


class _Server(uvicorn.Server):
    """Serves on a socket that is open already, and says where once it answers."""

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, started: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._tell = started

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self._listening.getsockname()[:2]
            self._tell(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
