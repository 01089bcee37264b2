"""What a format of JSON documents consists of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _whole(document: Any) -> Iterator[tuple[str, Any]]:
    yield "", document


@dataclass(frozen=True, slots=True)
class Format:
    """How documents of one recorder are recognised and read.

    `recognises` looks at any parsed JSON, and is quick. `recording` reads a part of a document:
    it raises RefusedError if the call cannot be taken. `parts` are a document's calls, each with
    its place in it.
    """

    name: str
    recognises: Callable[[Any], bool]
    recording: Callable[[Any, Source, Notes], Recording]
    parts: Callable[[Any], Iterator[tuple[str, Any]]] = _whole


def has_keys(document: Any, *keys: str) -> bool:
    """Whether it is an object with all of these keys."""
    return isinstance(document, dict) and all(key in document for key in keys)


def holds(values: Any, *keys: str) -> bool:
    """Whether it is an array whose first element is an object with all of these keys."""
    return isinstance(values, list) and bool(values) and has_keys(values[0], *keys)


def object_or_empty(value: Any) -> dict[str, Any]:
    """The object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}
