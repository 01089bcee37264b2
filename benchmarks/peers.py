"""pgai, CocoIndex and LangChain beside us: the same chunks, API, server and machine, turn by turn.

Peers find the chunks cut, in a table of a database of their own; ours starts from the transcripts
and includes cutting, counting tokens, the queue and publishing. No one keeps a vector index. Each
is measured as a process, from its start to its end, `ROUNDS` times in turns, so that what else the
machine does meets all of them; the figures are medians.

A peer is installed by pip into a virtual environment in the home folder, from the index that pip is
configured for. One that cannot be installed, or does not embed everything, is reported as such.
"""

import hashlib
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import psycopg

from benchmarks.measuring import (
    DIMENSIONS,
    Figure,
    Installation,
    Spent,
    at_least,
    installation,
    loopback_api,
    measured,
)
from benchmarks.throughput import (
    ENGINE,
    LATENCIES_MS,
    LONG,
    RECORDINGS,
    RUNS,
    TWICE,
    empty,
    settle,
)
from embedding_assets.settings import Settings

ROUNDS = 2
WALL, CPU = "chunks/s", "chunks/CPU s"
DATABASE = "peer"


class PeerError(Exception):
    """A peer that cannot take part, and why."""


@dataclass(frozen=True)
class Venv:
    """A virtual environment of a peer's own; kept, under a name that changes with its contents."""

    name: str
    requirements: Sequence[str]
    check: str  # a program that fails if it is of no use; prints what its processes must find set

    @cached_property
    def folder(self) -> Path:
        """Where it is: outside the tree, unless the home is the one that git ignores."""
        contents = repr((sys.version_info[:2], self.requirements))
        digest = hashlib.sha256(contents.encode()).hexdigest()[:12]
        return Settings().home / "benchmarks" / f"{self.name}-{digest}"

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.folder / "bin" / name)

    def ensure(self) -> dict[str, str]:
        """Installs what is not there yet; gives the variables that its processes need.

        Raises:
            PeerError: it cannot be installed, or what was installed cannot be imported.
        """
        ready = self.folder / "ready"
        if not ready.exists():
            print(f"installing {', '.join(self.requirements)} into {self.folder}", flush=True)
            _run([sys.executable, "-m", "venv", "--clear", str(self.folder)])
            _run([self.program("python"), "-m", "pip", "install", "-q", *self.requirements])
        # Also what makes the first measured run find its files in memory, as the later ones do.
        said = _run([self.program("python"), "-c", self.check])
        ready.touch()
        return dict(line.split("=", 1) for line in said.splitlines())


# Only what embedding a text column through OpenAI's API imports: the whole extra
# `vectorizer-worker` brings 7 GB for parsing documents, which pgai imports when it meets one.
PGAI = Venv(
    "pgai",
    (
        "pgai==0.12.1", "filetype==1.2.0", "ijson==3.6.0", "numpy==2.3.5", "openai==1.109.1",
        "pgvector==0.5.1", "psycopg[binary]==3.3.9", "tiktoken==0.14.0", "tokenizers==0.22.2",
    ),
    "import ijson, numpy, openai, pgai.cli, tiktoken\n"
    "from pgai.vectorizer.vectorizer import TIKTOKEN_CACHE_DIR\n"
    "assert ijson.backend == 'yajl2_c', 'ijson is without its fast parser'\n"
    # The vocabulary comes with pgai; without this, tiktoken would download it.
    "print(f'{TIKTOKEN_CACHE_DIR=!s}')",
)  # fmt: skip
COCOINDEX = Venv(
    "cocoindex",
    ("cocoindex==1.0.26", "asyncpg==0.32.0", "numpy==2.4.6", "openai==3.57.0"),
    # Nobody is told of it, and it does not wait for somebody to be told.
    "import os\n"
    "os.environ[name := 'COCOINDEX_DISABLE_USAGE_TRACKING'] = '1'\n"
    "import cocoindex.connectors.postgres, openai\n"
    "print(f'{name}=1')",
)
LANGCHAIN = Venv(
    "langchain",
    (
        "langchain-postgres==0.0.19", "langchain-openai==1.7.4", "langchain-core==1.8.3",
        "asyncpg==0.32.0", "numpy==2.4.6", "openai==3.57.0", "psycopg[binary]==3.3.9",
        "sqlalchemy==2.1.9",
    ),
    "import langchain_openai, langchain_postgres, asyncpg, psycopg",
)  # fmt: skip

CHUNKS = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE chunks (id int PRIMARY KEY, chunk_text text NOT NULL);
"""
# Batch size and concurrency as in its documentation of `ai.processing_default`, the only ones that
# it names. Measured: its defaults (50 and 1) are slower, 500 and 10 are not faster, and 200 and 10
# are faster now and then. Anything else in here is what does the least.
VECTORIZER = """
SELECT ai.create_vectorizer(
    'chunks'::regclass,
    loading => ai.loading_column('chunk_text'),
    parsing => ai.parsing_none(),
    chunking => ai.chunking_none(),
    embedding => ai.embedding_openai('text-embedding-3-small', %(dimensions)s::int),
    destination => ai.destination_table('pgai_vectors'),
    processing => ai.processing_default(batch_size => 200, concurrency => 5),
    indexing => ai.indexing_none(),
    scheduling => ai.scheduling_none()
)
"""


@dataclass(frozen=True)
class Peer:
    """What embeds the table `chunks`, and the table of vectors that it leaves."""

    name: str
    venv: Venv
    vectors: str
    prepare: Callable[[str, Mapping[str, str]], None]  # before the clock starts
    command: Callable[[str], Sequence[str]]  # from the database's URL

    def run(self, there: Installation, texts: Sequence[str]) -> Spent:
        """Embeds the texts in a fresh database, measured.

        Raises:
            PeerError: it failed, or left some out.
        """
        environment = {**there.environment, **self.venv.ensure()}
        url = _fresh_database(there, texts)
        self.prepare(url, environment)
        settle(url)
        try:
            spent = measured(self.command(url), environment)
        except RuntimeError as error:
            raise PeerError(_last_line(str(error))) from error
        with psycopg.connect(url) as connection:
            # The names are ours.
            row = connection.execute(f"SELECT count(embedding) FROM {self.vectors}").fetchone()  # noqa: S608
        if row != (len(texts),):
            raise PeerError(f"it left {row} vectors of {len(texts):,}")
        return spent


def _pgai_prepare(url: str, environment: Mapping[str, str]) -> None:
    _run([PGAI.program("pgai"), "install", "-d", url], environment)
    with psycopg.connect(url) as connection:
        connection.execute(VECTORIZER, {"dimensions": DIMENSIONS})


def _pgai(url: str) -> list[str]:
    return [PGAI.program("pgai"), "vectorizer", "worker", "--once", "-d", url]


def _script(venv: Venv, url: str) -> list[str]:
    """What a peer that is a library needs written, in a file beside this one."""
    script = str(Path(__file__).with_name(f"peer_{venv.name}.py"))
    return [venv.program("python"), script, url, str(DIMENSIONS)]


def _no_preparation(url: str, environment: Mapping[str, str]) -> None:
    """The program makes its tables itself."""


PEERS = (
    Peer("pgai 0.12.1", PGAI, "pgai_vectors", _pgai_prepare, _pgai),
    # Two processes for one vectorizer, which its documentation calls efficient too.
    Peer(
        "pgai 0.12.1, two workers",
        PGAI,
        "pgai_vectors",
        _pgai_prepare,
        lambda url: [*TWICE, *_pgai(url)],
    ),
    Peer(
        "CocoIndex 1.0.26",
        COCOINDEX,
        "cocoindex_vectors",
        _no_preparation,
        partial(_script, COCOINDEX),
    ),
    Peer(
        "LangChain PGVectorStore 0.0.19",
        LANGCHAIN,
        "langchain_vectors",
        _no_preparation,
        partial(_script, LANGCHAIN),
    ),
)
# How many times a peer's rate ours is meant to be.
AIMS = {
    (ENGINE, "pgai 0.12.1", CPU): 5.0,
    ("Dagster run", "pgai 0.12.1", CPU): 3.5,
    ("Dagster run", "pgai 0.12.1", WALL): 2.5,
    ("Dagster run", "pgai 0.12.1, two workers", WALL): 2.0,
}


def measure(recordings: int = RECORDINGS, long: int = LONG) -> list[Figure]:
    """All figures of this module."""
    figures: list[Figure] = []
    with installation() as there:
        there.load(recordings, long=long)
        peers = []
        for peer in PEERS:
            try:
                peer.venv.ensure()
                peers.append(peer)
            except PeerError as error:
                why = f"cannot be installed here: {error}"
                figures.append(Figure(peer.name, None, "", note=why))
        for latency in LATENCIES_MS:
            with loopback_api(latency) as settings:
                there.environment.update(settings)
                figures += _in_turns(there, peers, f"{latency} ms")
    return figures


def _in_turns(there: Installation, peers: Sequence[Peer], at: str) -> list[Figure]:
    ours: dict[str, list[Spent]] = defaultdict(list)
    theirs: dict[str, list[Spent]] = defaultdict(list)
    refused: dict[str, str] = {}
    texts: list[str] = []
    for _ in range(ROUNDS):
        for name, command in RUNS.items():
            empty(there)
            ours[name].append(measured(command, there.environment))
            texts = texts or _texts(there)
            assert there.count("transcript_chunks") == len(texts)
        for peer in peers:
            if peer.name in refused:
                continue
            try:
                theirs[peer.name].append(peer.run(there, texts))
            except PeerError as error:
                refused[peer.name] = str(error)
    return [
        *(
            Figure(f"{name}, {at}", None, WALL, note=f"does not do it here: {why}")
            for name, why in refused.items()
        ),
        *_figures(at, len(texts), ours, {k: v for k, v in theirs.items() if k not in refused}),
    ]


def _figures(
    at: str, chunks: int, ours: Mapping[str, list[Spent]], theirs: Mapping[str, list[Spent]]
) -> list[Figure]:
    figures: list[Figure] = []
    kinds: dict[str, Callable[[Spent], float]] = {
        WALL: lambda spent: chunks / spent.wall,
        CPU: lambda spent: chunks / spent.cpu,
    }
    for unit, rate in kinds.items():
        rates = {name: statistics.median(map(rate, spent)) for name, spent in theirs.items()}
        figures += [Figure(f"{name}, {at}", value, unit) for name, value in rates.items()]
        for name, spent in ours.items():
            value = statistics.median(map(rate, spent))
            for peer, theirs_rate in rates.items():
                ratio = value / theirs_rate
                aim = at_least(AIMS.get((name, peer, unit)), ratio)
                what = f"ours, {name}, {at}, beside {peer}"
                figures.append(Figure(what, value, unit, ratio, peer, **aim))
    return figures


def _texts(there: Installation) -> list[str]:
    """The text of every chunk that ours published."""
    with there.connect() as connection:
        rows = connection.execute(
            "SELECT chunk_text FROM transcript_chunks ORDER BY recording_id, chunk_index"
        )
        return [text for (text,) in rows]


def _fresh_database(there: Installation, texts: Sequence[str]) -> str:
    with there.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    there.server.ensure_database(DATABASE)
    url = there.server.url(DATABASE)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(CHUNKS)
        with cursor.copy("COPY chunks (id, chunk_text) FROM STDIN") as copy:
            for row in enumerate(texts):
                copy.write_row(row)
    return url


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Runs a command; gives what it printed.

    Raises:
        PeerError: it failed; with the last line of what it said.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(_last_line(done.stderr or done.stdout))
    return done.stdout.strip()


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # pip and pgai mark errors like this; what follows them is advice.
    errors = [line for line in lines if line.startswith("ERROR:") or "[error" in line]
    return (errors or lines or ["it said nothing"])[-1][:200]


if __name__ == "__main__":
    for each in measure(*map(int, sys.argv[1:])):
        print(each)
