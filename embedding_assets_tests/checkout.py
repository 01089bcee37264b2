"""A checkout of the project of its own, and the commands a person types in it.

The project's root, and so its `.env`, follows from where the package lies. Tests of the commands
run them in a copy, so that they never touch the `.env` or the data of whoever runs the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
FILES = ("dagster.yaml", "workspace.yaml", "pyproject.toml")
PACKAGE = "embedding_assets"
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "SystemRoot")


@contextmanager
def short_folder(name: str) -> Iterator[Path]:
    """A folder with a short path, which the server's user may reach; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"ea-{name}-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


class Checkout:
    """A copy of the checkout in `folder`, and an environment with nothing of the developer's."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment
        shutil.copytree(
            ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in FILES:
            shutil.copy(ROOT / name, folder / name)

    @property
    def env_file(self) -> Path:
        """The copy's `.env`."""
        return self.folder / ".env"

    def __call__(
        self,
        *arguments: str | Path,
        given: str | None = None,
        code: int = 0,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """Runs `embedding-assets`, and holds that it ends with this code."""
        return self.run("embedding-assets", *arguments, given=given, code=code, env=env)

    def run(
        self,
        program: str,
        *arguments: str | Path,
        given: str | None = None,
        code: int = 0,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the virtual environment in the copy's root."""
        result = subprocess.run(
            [str(BIN / program), *map(str, arguments)],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
            env=self._environment(env),
        )
        assert result.returncode == code, f"{arguments}: {result.stdout}\n{result.stderr}"
        return result

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a program in a process group of its own, and says nothing of how it ends."""
        return subprocess.Popen(
            [str(BIN / program), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
            env=self._environment({}),
        )

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        own = {"PYTHONPATH": str(self.folder), "NO_COLOR": "1"}
        return {**inherited, **own, **self.environment, **env}
