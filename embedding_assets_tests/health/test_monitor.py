"""The monitor, as a person reads it in a terminal and a script in a pipe."""

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from embedding_assets.cli import main
from embedding_assets_tests.checkout import BIN, Checkout, short_folder

MODEL = "local/all-MiniLM-L6-v2-int8/384"
RUN = "5b1c0a7e-5f0e-4b52-9c55-0d0f6a3c1e11"
DEAD_RUN = "c0ffee00-1111-4222-8333-444455556666"
LONG_ID = "Bo's call " + "0123456789abcdef" * 8
HOSTILE = "\x1b[31mred\x07\nforged: line [bold]"
AWAY = "postgresql://someone:hunter2@127.0.0.1:1/calls"

CALLS = """
    INSERT INTO embedding_models VALUES (%(model)s, 384, true);
    INSERT INTO fathom_calls (recording_id, title)
        SELECT 'call-' || n, 'A call' FROM generate_series(1, 1200) AS n;
    UPDATE embedding_queue
        SET status = 'completed', completed_at = now(), transcript_version = 'v', chunk_count = 0,
            token_count = 0;
"""
ATTEMPT = """
    INSERT INTO embedding_attempts
        (attempt_id, recording_id, run_id, lane, model, outcome, error_kind, error, chunks,
         embedded, requests, tokens, cost_usd, seconds, finished_at)
    VALUES (gen_random_uuid(), 'call-9', 'run', 'standard', %(model)s, %(outcome)s, %(kind)s,
            %(error)s, %(embedded)s, %(embedded)s, %(requests)s, %(tokens)s, %(cost)s, 1,
            now() - %(ago)s::interval)
"""
HELD = """
    UPDATE embedding_queue
    SET status = 'processing', claimed_by = %(run)s, started_at = '2026-10-01T09:00:00Z',
        lease_expires_at = now() + %(lease)s::interval
    WHERE recording_id = ANY(%(ids)s)
"""
DEAD = """
    UPDATE embedding_queue
    SET status = 'dead_letter', attempts = %(attempts)s, recoveries = %(recoveries)s,
        error_kind = %(kind)s, last_error = %(error)s
    WHERE recording_id = ANY(%(ids)s)
"""


class State:
    """Makes a state of the system, row by row, in a real database."""

    def __init__(self, url: str) -> None:
        self.url = url

    def execute(self, statement: str, **parameters: Any) -> None:
        """Runs statements."""
        with psycopg.connect(self.url, cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute(statement.encode(), {"model": MODEL, **parameters})

    def attempt(self, outcome: str, ago: str = "0", **columns: Any) -> None:
        """Writes an attempt down."""
        nothing = {"kind": None, "error": None, "embedded": 0, "requests": 0, "tokens": 0}
        self.execute(ATTEMPT, outcome=outcome, ago=ago, **{**nothing, "cost": 0, **columns})


def healthy(state: State) -> None:
    """Work goes on, and one recording was given up for the time being."""
    error = "the API answered 503"
    state.execute(CALLS)
    state.execute(HELD, run=RUN, lease="36 hours", ids=["call-1", "call-2"])
    state.execute(DEAD, attempts=3, recoveries=1, kind="transient", error=error, ids=["call-3"])
    state.attempt("published", embedded=3, requests=2, tokens=12345, cost="0.0042")
    state.attempt("failed", kind="transient", error=error, requests=4)


def warning(state: State) -> None:
    """A run died, and a recording waits for a person; neither its id nor its error is tame."""
    state.execute("INSERT INTO fathom_calls (recording_id, title) VALUES (%(id)s, '')", id=LONG_ID)
    state.execute(CALLS)
    refused = {"kind": "invalid_input", "error": HOSTILE}
    state.execute(DEAD, attempts=1, recoveries=3, **refused, ids=[LONG_ID])
    state.execute(HELD, run=DEAD_RUN, lease="-90 minutes", ids=["call-1", "call-2"])
    state.execute(HELD, run=RUN, lease="36 hours", ids=["call-5"])
    state.attempt("published", embedded=3, requests=2, tokens=12345, cost=None)


def critical(state: State) -> None:
    """A refused key, nothing published for seven hours, sixty given up, one broken."""
    error = "the database ended a statement: canceling statement due to statement timeout"
    state.execute(CALLS)
    state.execute(
        "UPDATE embedding_queue SET status = 'pending', enqueued_at = now() - interval '1 day'"
        " WHERE recording_id IN (SELECT 'call-' || n FROM generate_series(1, 510) AS n);"
        "INSERT INTO integrity_findings VALUES ('call-1000', '2 chunks where 3 were published')"
    )
    given_up = [f"call-{n}" for n in range(1100, 1160)]
    timed_out = {"kind": "statement_timeout", "error": error}
    state.execute(DEAD, attempts=3, recoveries=0, **timed_out, ids=given_up)
    state.attempt("published", ago="7 hours 30 minutes", embedded=3)
    state.attempt("released", kind="configuration", error="OPENAI_API_KEY was refused")


STATES: dict[str, tuple[Callable[[State], None], int]] = {
    "healthy": (healthy, 0),
    "warning": (warning, 1),
    "critical": (critical, 2),
}


def pinned(text: str) -> str:
    """The text with the times of the test's own run taken out, in the same width."""
    text = re.sub(r"(?!2026-10-01)\d{4}-\d\d-\d\d \d\d:\d\d", "YYYY-MM-DD HH:MM", text)
    text = re.sub(r"(HH:MM):\d\d", r"\1:SS", text)
    text = re.sub(r"(\d+ h) \d\d min", r"\1 MM min", text)
    return re.sub(r"pgvector \d+\.\d+\.\d+", "pgvector X.Y.Z", text)


def uncolored(text: str) -> str:
    """The text without colours and weights, and without the spaces that fill the window's lines."""
    return re.sub(r" *\r\n", "\n", re.sub(r"\x1b\[[\d;]*m", "", text))


def screen(name: str) -> Path:
    """The file that has what is to be shown, whole."""
    return Path(__file__).with_name("screens") / f"{name}.txt"


def assert_shown(text: str, name: str) -> None:
    """The whole text is the one in the file; REWRITE_SCREENS=1 makes it so, for git to compare."""
    if os.environ.get("REWRITE_SCREENS"):
        screen(name).write_text(text)
    assert text == screen(name).read_text()


class Terminal:
    """A real terminal with a program in it that believes in a person."""

    def __init__(self, cli: Checkout, *arguments: str, columns: int, rows: int, **env: str) -> None:
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [str(BIN / "embedding-assets"), *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            # Ctrl-C reaches whoever has the terminal as its own.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            cwd=cli.folder,
            env=cli._environment({"NO_COLOR": "", "TERM": "xterm-256color", **env}),
        )
        os.close(inner)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def type(self, keys: str) -> None:
        """As if these keys were pressed."""
        os.write(self._screen, keys.encode())

    def read_until(self, *wanted: str) -> None:
        """Reads on until all of this was shown after what was read before."""
        start = len(self.text)
        while not all(text in self.text[start:] for text in wanted):
            assert self._read(), f"ended before {wanted}: {self.text!r}"

    def read_to_end(self) -> int:
        """Reads all there is; gives the exit code."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._screen], [], [], 60)
        assert ready, f"nothing more was shown: {self.text!r}"
        data = b""
        with contextlib.suppress(OSError):  # EIO: the other side was closed
            data = os.read(self._screen, 65536)
        # Not each part by itself: a character of several bytes may come in two of them.
        self.text += self._decoder.decode(data)
        return bool(data)


def lines_of(process: "subprocess.Popen[str]") -> Iterator[Any]:
    """The documents that a process prints, one a line, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that the server's user may reach."""
    with short_folder("monitor") as folder:
        yield folder


@pytest.fixture(scope="module")
def cli(folder: Path) -> Checkout:
    """The command in a checkout of its own, without a database of its own."""
    return Checkout(folder / "checkout", EMBEDDING_ASSETS_HOME=str(folder / "home"))


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, database_url: str) -> tuple[str, int, str]:
    """A state of the system: its name, its exit code, the database that is in it."""
    make, code = STATES[request.param]
    make(State(database_url))
    return request.param, code, database_url


def test_in_a_pipe_it_is_plain_and_whole(cli: Checkout, state: tuple[str, int, str]) -> None:
    name, code, url = state
    # A narrow window around the pipe cuts nothing.
    result = cli("monitor", code=code, env={"DATABASE_URL": url, "NO_COLOR": "", "COLUMNS": "30"})
    assert_shown(pinned(result.stdout), f"{name}-piped")
    assert result.stderr == ""


def test_in_a_terminal_it_is_laid_out_for_its_width(
    cli: Checkout, state: tuple[str, int, str]
) -> None:
    name, code, url = state
    with Terminal(cli, "monitor", columns=80, rows=24, DATABASE_URL=url) as terminal:
        assert terminal.read_to_end() == code
    assert_shown(pinned(uncolored(terminal.text)), f"{name}-80-columns")


def test_colours_tell_how_bad_it_is(cli: Checkout, database_url: str) -> None:
    warning(State(database_url))
    with Terminal(cli, "monitor", columns=120, rows=60, DATABASE_URL=database_url) as terminal:
        terminal.read_to_end()
    assert "\x1b[1;7;33mWARNING\x1b[0m" in terminal.text
    assert "\x1b[32mhealthy \x1b[0m" in terminal.text
    assert "\x1b[33mwarning \x1b[0m" in terminal.text
    assert "\x1b[31mwaits for a person\x1b[0m" in terminal.text
    env = {"DATABASE_URL": database_url, "NO_COLOR": "1"}
    with Terminal(cli, "monitor", columns=120, rows=60, **env) as plain:
        assert plain.read_to_end() == 1
    assert uncolored(plain.text)[80:] == uncolored(terminal.text)[80:]
    assert re.findall(r"\x1b\[[\d;]*3\d[\d;]*m", plain.text) == []


def test_json_is_one_document_of_one_moment(cli: Checkout, state: tuple[str, int, str]) -> None:
    name, code, url = state
    result = cli("monitor", "--json", code=code, env={"DATABASE_URL": url})
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["status"] == name
    severities = {check["severity"] for check in document["checks"]}
    assert name in severities
    numbers = document["numbers"]
    assert document["recordings"]["dead_letter"] == numbers["dead_letters"]
    assert sum(document["recordings"].values()) == (1201 if name == "warning" else 1200)
    figures = {check["name"]: check["figures"] for check in document["checks"]}
    assert figures["dead_letters"]["dead_letters"] == numbers["dead_letters"]
    assert figures["recent_activity"]["due"] == document["due"]
    assert len(document["dead_letters"]) == min(10, numbers["dead_letters"])
    holds = sum(run["recordings"] for run in document["runs_in_flight"])
    assert holds == document["recordings"]["processing"]
    for at in (
        document["checked_at"],
        *(run["lease_expires_at"] for run in document["runs_in_flight"]),
        *(letter["next_attempt_at"] for letter in document["dead_letters"]),
    ):
        assert datetime.fromisoformat(at).utcoffset() == timedelta(0)


def test_json_holds_errors_ids_and_commands_as_they_are(cli: Checkout, database_url: str) -> None:
    warning(State(database_url))
    result = cli("monitor", "--json", code=1, env={"DATABASE_URL": database_url})
    document = json.loads(result.stdout)
    (letter,) = document["dead_letters"]
    assert letter.pop("next_attempt_at")
    assert letter == {
        "recording_id": LONG_ID,
        "attempts": 1,
        "recoveries": 3,
        "waits_for_person": True,
        "error_kind": "invalid_input",
        "last_error": HOSTILE,
    }
    living, dead = document["runs_in_flight"]
    assert (living["run_id"], living["recordings"]) == (RUN, 1)
    assert (dead["run_id"], dead["recordings"]) == (DEAD_RUN, 2)
    assert living["holds_since"] == "2026-10-01T09:00:00+00:00"
    assert dead["lease_expires_at"] < document["checked_at"] < living["lease_expires_at"]
    assert document["numbers"]["tokens_today"] == 12345
    assert document["numbers"]["cost_today_usd"] is None


def test_quick_actions_are_commands_that_there_are(
    cli: Checkout, state: tuple[str, int, str]
) -> None:
    _, code, url = state
    document = json.loads(cli("monitor", "--json", code=code, env={"DATABASE_URL": url}).stdout)
    assert document["quick_actions"]
    for action in document["quick_actions"]:
        program, name, *arguments = shlex.split(action["command"])
        assert program == "embedding-assets"
        context = main.commands[name].make_context(name, arguments)
        asked = context.params.get("recording_ids", ())
        ids = {letter["recording_id"] for letter in document["dead_letters"]}
        assert set(asked) <= ids


def test_a_model_that_search_does_not_read_is_to_be_switched_to(
    cli: Checkout, database_url: str
) -> None:
    healthy(State(database_url))
    State(database_url).execute("UPDATE embedding_models SET model = 'local/another/384'")
    result = cli("monitor", code=2, env={"DATABASE_URL": database_url})
    assert "embedding-assets switch-model  " in result.stdout


def test_a_database_that_is_away_is_critical(cli: Checkout) -> None:
    result = cli("monitor", code=2, env={"DATABASE_URL": AWAY})
    assert_shown(pinned(result.stdout), "unreachable-piped")
    assert result.stderr == ""
    result = cli("monitor", "--json", code=2, env={"DATABASE_URL": AWAY})
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert (document["status"], document["numbers"]) == ("critical", None)
    assert "hunter2" not in result.stdout


def test_a_database_without_the_schema_is_critical(cli: Checkout, empty_database_url: str) -> None:
    result = cli("monitor", code=2, env={"DATABASE_URL": empty_database_url})
    assert_shown(pinned(result.stdout), "not-migrated-piped")
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--watch", "1")])
def test_an_invalid_setting_is_exit_code_2_and_is_named(
    cli: Checkout, arguments: tuple[str, ...]
) -> None:
    env = {"DATABASE_URL": AWAY, "HEALTH_PENDING_WARNING": "0"}
    result = cli("monitor", *arguments, code=2, env=env)
    assert result.stdout == ""
    assert "HEALTH_PENDING_WARNING: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_it_is_not_watched_without_a_pause(cli: Checkout, seconds: str) -> None:
    assert "Usage: " in cli("monitor", "--watch", seconds, code=2).stderr


def test_its_help_tells_its_own_exit_codes(cli: Checkout) -> None:
    text = " ".join(cli("monitor", "--help").stdout.split())
    assert "Exit codes: 0 healthy; 1 warning; 2 critical" in text


def test_watched_in_a_terminal_it_is_redrawn_in_place_until_ctrl_c(
    cli: Checkout, database_url: str
) -> None:
    state = State(database_url)
    healthy(state)
    with Terminal(
        cli, "monitor", "--watch", "1", columns=80, rows=24, DATABASE_URL=database_url
    ) as terminal:
        terminal.read_until("\x1b[?1049h", "HEALTHY", "more lines in a taller window")
        state.execute(HELD, run=DEAD_RUN, lease="-90 minutes", ids=["call-7"])
        terminal.read_until("WARNING", "call-7: held by run")
        before = len(terminal.text)
        terminal.type("\x03")
        assert terminal.read_to_end() == 1
    assert "Traceback" not in terminal.text
    assert "\x1b[?25h" in terminal.text[before:]  # the cursor is back
    drawn, _, after = terminal.text.rpartition("\x1b[?1049l")
    # It never scrolled the window, and left all of the last look in the usual one.
    for drawing in re.split(r"\x1b\[H", drawn)[2:]:
        assert drawing.count("\n") <= 23
    assert_shown(pinned(uncolored(after)), "after-the-watch-80-columns")


def test_watched_in_a_pipe_it_prints_one_look_after_the_other(
    cli: Checkout, database_url: str
) -> None:
    healthy(State(database_url))
    with subprocess.Popen(
        [str(BIN / "embedding-assets"), "monitor", "--watch", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cli.folder,
        env=cli._environment({"DATABASE_URL": database_url}),
    ) as process:
        assert process.stdout is not None
        twice = (screen("healthy-piped").read_text() + "\n") * 2
        looks = "".join(process.stdout.readline() for _ in twice.splitlines())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert pinned(looks + rest).startswith(twice)
    assert "\x1b" not in looks


def test_watched_it_survives_a_server_that_goes_away_and_starts_none_again(
    folder: Path,
) -> None:
    home = folder / "away"
    cli = Checkout(folder / "own", EMBEDDING_ASSETS_HOME=str(home))
    try:
        cli("init")
        with subprocess.Popen(
            [str(BIN / "embedding-assets"), "monitor", "--watch", "1", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cli.folder,
            env=cli._environment({}),
        ) as process:
            looks = lines_of(process)
            assert next(looks)["status"] == "healthy"
            next(looks)
            files = psutil.Process(process.pid).num_fds()
            cli("stop")
            away = next(look for look in looks if look["status"] == "critical")
            assert away["checks"][0]["name"] == "configuration"
            assert next(looks)["status"] == "critical"
            assert "was not running" in cli("stop").stdout
            cli("init")
            back = next(look for look in looks if look["status"] == "healthy")
            assert back["checked_at"] > away["checked_at"]
            # A look may be going on; between looks nothing is open that was not before.
            while psutil.Process(process.pid).num_fds() > files:
                next(looks)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        cli("stop")


def test_watched_and_interrupted_it_ends_with_the_code_of_the_last_look(cli: Checkout) -> None:
    with Terminal(
        cli, "monitor", "--watch", "1", "--json", columns=80, rows=24, DATABASE_URL=AWAY
    ) as terminal:
        terminal.read_until("\n")
        terminal.type("\x03")
        assert terminal.read_to_end() == 2
    assert "Traceback" not in terminal.text
