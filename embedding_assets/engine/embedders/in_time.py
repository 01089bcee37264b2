"""Lets an HTTP answer come in a limited time, however slowly its pieces arrive."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def in_time(path_end: str, seconds: float) -> Callable[[Any], None]:
    """A response hook of httpx: bodies from paths with this end come within so many seconds.

    The library's own limit is on each piece. What reads a body later than that gets the library's
    ReadTimeout, also where it is the body of an error.
    """

    def hook(response: Any) -> None:
        if response.request.url.path.endswith(path_end):
            response.stream = _limited(response, time.monotonic() + seconds)

    return hook


def _limited(response: Any, ends_at: float) -> Any:
    """The response's stream, which ends with ReadTimeout at this time of the monotonic clock."""
    # Of the OpenAI client the version decides: httpx, or its successor httpx2.
    httpx = sys.modules[type(response).__module__.partition(".")[0]]
    stream, request = response.stream, response.request

    class InTime(httpx.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                yield piece
                if time.monotonic() > ends_at:
                    raise httpx.ReadTimeout("the answer did not come to its end", request=request)

        def close(self) -> None:
            stream.close()

    return InTime()
