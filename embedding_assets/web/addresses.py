"""What stands in the addresses of pages: a question with its filters, a call, a time."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.search.search import Filters
from embedding_assets.web import models

FILTERS = ("person", "speaker", "title", "platform", "from", "until")
SEVERAL = {"person", "speaker", "platform"}


class Asked:
    """A question and what it is narrowed to, as they stand in the address of a page."""

    def __init__(self, question: str, given: Mapping[str, str], filters: Filters) -> None:
        self.question = question
        self.given = given
        self.filters = filters

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> "Asked":
        """Reads the address; people, speakers and platforms may be several, with commas.

        Raises:
            InvalidInputError: a filter is not of its form; the text names it.
        """
        given = {name: parameters.get(name, "").strip() for name in FILTERS}
        question = parameters.get("q", "").strip()
        wanted: dict[str, Any] = {
            name: re.split(r"\s*,\s*", value) if name in SEVERAL else value
            for name, value in given.items()
            if value
        }
        try:
            narrowed = models.Narrowed.model_validate(wanted)
            if question:
                models.SearchQuery(q=question)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
            raise InvalidInputError(f"{name}: {first['msg']}") from None
        return cls(question, given, narrowed.filters())

    @property
    def is_narrowed(self) -> bool:
        """Whether any filter is set."""
        return any(self.given.values())

    def address(self, path: str = "/", **changed: str) -> str:
        """The address of this search, with some of it changed."""
        values = {"q": self.question, **self.given, **changed}
        query = urlencode({name: value for name, value in values.items() if value})
        return f"{path}?{query}" if query else path


def call_address(recording_id: str) -> str:
    """Where a call's page is."""
    return f"/calls/{quote(recording_id, safe='')}"


def own_address(text: str) -> str:
    """An address of this server, whatever a link says."""
    try:
        parts = urlsplit(text.replace("\\", "/"))
    except ValueError:
        return "/"
    is_ours = text.startswith("/") and not parts.scheme and not parts.netloc and text.isprintable()
    return text if is_ours and not text.startswith("//") else "/"


def seconds_of(text: str) -> float | None:
    """Seconds of `1:02:03`, `62:03` or `3723`; None where it is none of these."""
    if not re.fullmatch(r"\s*(\d{1,6})(:\d{1,2}){0,2}(\.\d+)?\s*", text):
        return None
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
