"""Links that open a recording at a second."""

import re
from urllib.parse import urlsplit

# What each recorder puts behind the address of a call; {} stands for whole seconds.
PATTERNS = {
    "fathom.video": "#t={}",
    "fireflies.ai": "?t={}",
    "youtube.com": "&t={}",
    "youtu.be": "?t={}",
    "vimeo.com": "#t={}s",
    "loom.com": "?t={}",
}
_MEDIA = re.compile(r"\.(mp4|webm|mp3|m4a|ogg|wav)$", re.IGNORECASE)


def link_at(url: str | None, seconds: float | None) -> str | None:
    """The recording's address, at that second where its recorder is known to take one.

    What a recorder supplies is untrusted: None for whatever is no web address.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host or not url.isprintable() or " " in url:
        return None
    pattern = next(
        (p for name, p in PATTERNS.items() if host == name or host.endswith("." + name)),
        "#t={}" if _MEDIA.search(parts.path) else None,  # W3C Media Fragments
    )
    if seconds is None or pattern is None or parts.fragment:
        return url
    if pattern[0] in "?&":
        pattern = ("&" if parts.query else "?") + pattern[1:]
    return url + pattern.format(int(seconds))
