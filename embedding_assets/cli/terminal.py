"""What the commands share: consoles, exit codes, how errors, progress and JSON are shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console

from embedding_assets.printing import printable

DONE = 0
FAILED = 1
MISCONFIGURED = 2

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def complain(error: Exception | str) -> None:
    """Tells an error in one line; its text is printed as it is, not as markup."""
    err.print("error:", style="red", end=" ")
    err.print(printable(str(error)), markup=False)


def as_json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --json, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


@contextmanager
def spinner(what: str, things: str = "recordings") -> Iterator[Callable[[int], None]]:
    """Counts up in the terminal while something takes its time."""
    with err.status(what) as status:
        yield lambda count: status.update(f"{what}: {count:,} {things}")
