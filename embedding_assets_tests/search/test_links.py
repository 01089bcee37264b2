"""Links open the recording at a second, and only web addresses become links."""

import pytest

from embedding_assets.search.links import link_at


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://fathom.video/calls/1", "https://fathom.video/calls/1#t=645"),
        ("https://app.fireflies.ai/view/x", "https://app.fireflies.ai/view/x?t=645"),
        ("https://app.fireflies.ai/view/x?a=1", "https://app.fireflies.ai/view/x?a=1&t=645"),
        ("https://www.youtube.com/watch?v=1", "https://www.youtube.com/watch?v=1&t=645"),
        ("https://youtu.be/1", "https://youtu.be/1?t=645"),
        ("https://files.example/a.mp4", "https://files.example/a.mp4#t=645"),
        ("https://unknown.example/a", "https://unknown.example/a"),
        ("https://notfathom.video/a", "https://notfathom.video/a"),
        ("https://fathom.video/calls/1#x", "https://fathom.video/calls/1#x"),
        ("javascript:alert(1)", None),
        ("https://", None),
        ("https://fathom.video/\x1b]8;;", None),
        ("http://[", None),
        ("", None),
        (None, None),
    ],
)
def test_a_link_opens_at_the_second(url: str | None, expected: str | None) -> None:
    assert link_at(url, 645.9) == expected


def test_without_a_time_the_link_is_the_recordings() -> None:
    assert link_at("https://fathom.video/calls/1", None) == "https://fathom.video/calls/1"
