"""Nothing that a recorder supplies steers the terminal of whoever reads it."""

import unicodedata
from collections.abc import Iterator

import pytest

from embedding_assets.printing import printable
from embedding_assets_tests.checkout import Checkout, short_folder

STEERING = "a\x1b]0;title\x07b\x1b[31mred\r\u202ereversed\x9b2J"


@pytest.fixture
def cli() -> Iterator[Checkout]:
    """The command in a checkout of its own, with the offline model."""
    with short_folder("terminal") as folder:
        cli = Checkout(folder / "checkout", EMBEDDING_ASSETS_HOME=str(folder / "home"))
        try:
            yield cli
        finally:
            cli("stop")


def test_control_characters_and_reordering_become_visible() -> None:
    shown = printable(f"Café ☕ {STEERING}\nnext")
    assert shown.startswith("Café ☕ a\ufffd]0;title\ufffdb")
    kinds = {unicodedata.category(c) for c in shown.replace("\n", "")}
    assert not kinds & {"Cc", "Cf"}


@pytest.mark.slow  # a checkout of its own, embedded on the offline model
def test_a_title_an_id_and_a_file_name_are_shown_without_their_escape_sequences(
    cli: Checkout,
) -> None:
    name = "Talk [x] \x1b[31m[red].vtt"
    (cli.folder / name).write_text("no captions")
    call = (
        '{"recording_id": "r1", "title": "T \\u001b]0;pwned\\u0007 [/b]", "segments":'
        ' [{"speaker": "Ann \\u001b[2J", "start": 0, "text": "The zebra \\u001b[31m ran."}]}'
    )
    cli("init")
    cli("import", "-", given=call)
    rejected = cli("import", str(cli.folder / name), code=1)
    cli("run")
    found = cli("search", "zebra")
    for result in (rejected, found):
        shown = result.stdout + result.stderr
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "zebra" in found.stdout
    assert "[/b]" in found.stdout
    assert "[red]" in rejected.stderr
