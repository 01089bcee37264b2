"""Renders pages from templates, in which whatever a recorder supplied is escaped."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.printing import printable
from embedding_assets.search.links import link_at
from embedding_assets.web.addresses import call_address
from embedding_assets.web.problems import UnauthorizedError, problem_of

TEMPLATES = Path(__file__).parent / "templates"
PARTS = ("/results",)  # paths that answer with a part of a page

Marks = tuple[tuple[int, int], ...]


class Pages:
    """Renders the templates; what a recorder supplied is escaped, and cannot steer the page."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            {"safe_text": printable, "clock": clock, "day": day, "length_of": length}
        )
        self._templates.globals.update(
            {"marked": marked, "call_address": call_address, "recording_at": link_at}
        )

    def show(self, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page by the name of its template."""
        text = self._templates.get_template(name).render(**values)
        return HTMLResponse(text, status)

    def error(self, request: Request, error: EmbeddingAssetsError) -> Response:
        """What is shown in place of a page: what happened and what to do."""
        document, headers = problem_of(error)
        is_part = request.url.path in PARTS
        if isinstance(error, UnauthorizedError) and not is_part:
            place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/sign-in?{urlencode({'next': place})}", 303)
        name = "problem_part.html" if is_part else "problem.html"
        answer = self.show(name, status=document["status"], problem=document, who=None)
        answer.headers.update({k: v for k, v in headers.items() if k != "www-authenticate"})
        return answer


def clock(seconds: float | None) -> str:
    """`1:02:03`; empty where it is not known."""
    return "" if seconds is None else str(timedelta(seconds=math.floor(seconds)))


def length(seconds: float | None) -> str:
    """`1 h 2 min`; empty where it is not known."""
    if seconds is None:
        return ""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def day(moment: datetime | None) -> str:
    """`2026-01-31`, in UTC; empty where it is not known."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"


def marked(text: str, marks: Marks) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is marked."""
    pieces, at = [], 0
    for start, end in marks:
        if start >= at:
            pieces += [(text[at:start], False), (text[start:end], True)]
            at = end
    pieces.append((text[at:], False))
    return [(printable(piece), is_marked) for piece, is_marked in pieces if piece]
