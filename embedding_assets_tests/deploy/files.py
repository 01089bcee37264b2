"""What the files of deploy/ say, and what can be tried of it where no containers run."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from embedding_assets.settings import Settings
from embedding_assets_tests.checkout import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
NAMES = {name.upper() for name in Settings.model_fields}


def read(path: Path) -> Any:
    """The one document of a file."""
    return yaml.safe_load(path.read_text())


def commands(command: Sequence[str]) -> list[list[str]]:
    """The commands of one container: those of a line for a shell, or the one."""
    if list(command[:2]) == ["sh", "-c"]:
        return [each.split() for each in command[2].split(" && ")]
    return [list(command)]


def refused(command: Sequence[str]) -> str | None:
    """What the program says against its arguments, without doing what it would do; None: nothing.

    `--help` comes after the words before it were understood, and before anything is done.
    """
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [program, *command[1:], "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    return None if done.returncode == 0 else done.stderr
