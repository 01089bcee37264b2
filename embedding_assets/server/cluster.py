"""A new database cluster: initdb, and the settings that it starts with."""

import shutil
import tempfile
from pathlib import Path

from embedding_assets.engine.errors import ConfigurationError
from embedding_assets.server.account import Account

# Written to postgresql.conf once, where a person may change them.
INITIAL_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    # Files in the data folder: a container's /dev/shm is too small for a parallel index build, and
    # systemd empties it when a user logs out. Measured as fast as shared memory.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements, details and the texts of errors quote what was said on a call; the client gets
    # them anyway. What remains is the server's own life: starts, recoveries, checkpoints.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def initialise(target: Path, account: Account, program: Path, superuser: str) -> None:
    """Makes a database cluster in `target` by initdb, unless there is one.

    Args:
        target: the data folder.
        account: the user that the server runs as.
        program: the folder of the binaries.
        superuser: the name of the first role.

    Raises:
        ConfigurationError: the folder holds other files, or initdb refused.
    """
    if (target / "PG_VERSION").exists():
        return
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError(
            f"{target} holds files but no Postgres database; move it out of the way."
        )
    for leftover in target.parent.glob("postgres.initdb-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    # Under a name of its own until it is complete: an initdb that was interrupted leaves
    # nothing that looks like a database, and one that lost its parent disturbs nobody.
    fresh = Path(tempfile.mkdtemp(prefix="postgres.initdb-", dir=target.parent))
    account.take(fresh)
    done = account.run(
        [
            str(program / "initdb"),
            f"--pgdata={fresh}",
            f"--username={superuser}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            # Trust is safe: the only way in is the socket, in a folder that none but the
            # server's user (and root) can enter, and they can read the data files anyway.
            "--auth-local=trust",
            "--auth-host=reject",
            *(f"--set={name}={value}" for name, value in INITIAL_SETTINGS.items()),
        ]
    )
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise ConfigurationError(f"initdb failed in {target.parent}:\n{last_lines(done.stdout)}")
    fresh.rename(target)


def last_lines(text: str) -> str:
    """The end of a program's output, for an error's text."""
    return "\n".join(text.strip().splitlines()[-15:])
