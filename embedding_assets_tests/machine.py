"""What some tests need that not every machine has: these are skipped, and the session says so."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedding_assets_tests.checkout import ROOT

_ROOT = "root's rights"
_FOUND: dict[str, Callable[[], Any]] = {
    "Chromium": lambda: shutil.which("chromium") or shutil.which("google-chrome"),
    "Redis": lambda: shutil.which("redis-server"),
    "PgBouncer": lambda: shutil.which("pgbouncer"),
    "libfaketime": lambda: next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None),
    _ROOT: lambda: os.geteuid() == 0,
    "the shared cases and transcripts": (ROOT.parent / "shared").is_dir,
}


def need(name: str) -> Any:
    """What is found of this name, for instance a program's path; without it the test is skipped."""
    found = _FOUND[name]()
    if not found:
        pytest.skip(f"needs {name}")
    return found


def needing(*names: str) -> pytest.MarkDecorator:
    """Marks tests that are skipped where one of these is missing."""
    missing = [name for name in names if not _FOUND[name]()]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def skipped() -> str:
    """What this machine lacks, in one line for the start of a session."""
    missing = [name for name, find in _FOUND.items() if not find()]
    if not missing:
        return "this machine has all that the tests need: none is skipped for want of it"
    return f"not on this machine, so that tests are skipped: {', '.join(missing)}"


as_root = needing(_ROOT)
