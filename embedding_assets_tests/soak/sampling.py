"""What is measured every ten seconds, and what is expected of it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from embedding_assets_tests.soak.installation import Installation
from embedding_assets_tests.soak.judging import Rule, Sample

SAMPLE_SECONDS = 10.0
MIB = 2**20

RULES = (
    Rule("memory of Postgres", "MiB", "its backends come and go with the runs", True, 0.25, 40),
    # SQLAlchemy keeps the dialects of the last 128 ticks: 25 MiB, in a quarter of an hour.
    Rule("memory of", "MiB", "what SQLAlchemy's caches hold at last", True, 0.1, 15),
    Rule("open files of", "files", "a connection or two in use at the moment", True, 0.1, 6),
    Rule("connections of", "connections", "those of the runs at the moment", True, 0.25, 6),
    Rule("zombie processes", "processes", "one that ended a moment ago", True, 0.0, 2),
    Rule("temporary files", "files", "those of the runs at the moment", True, 0.1, 6),
    Rule("temporary bytes", "MiB", "those of the runs at the moment", True, 0.1, 5),
    Rule("dead rows past autovacuum's threshold of", "rows",
         "autovacuum looks every ten seconds: what changes meanwhile", True, 0.5, 600),
    Rule("bytes a row of indexes of", "bytes",
         "random inserts leave B-trees two thirds full at last, from nearly full", True, 0.5, 200),
    Rule("bytes a row of", "bytes",
         "a table keeps the room of what autovacuum lets stand", True, 0.5, 200),
    Rule("size of", "KiB", "room for the rows that autovacuum lets stand", True, 0.5, 128),
    Rule("rows of embedding_queue", "rows", "the calls that come and go", True, 0.2, 8),
    Rule("rows of transcript_chunks", "rows", "the calls that come and go", True, 0.25, 600),
    Rule("rows of chunk_embeddings", "rows", "what waits for the sweep", True, 0.5, 1500),
    Rule("vectors outside of any part", "vectors", "a part more or less", True, 0.0, 900),
    Rule("parts of the vector index", "parts", "small ones that wait to be merged", True, 0.5, 4),
    Rule("parts that lost most", "parts", "built again within minutes", True, 0.0, 2),
    Rule("bytes a vector of the vector index", "bytes",
         "swept vectors stay in a part until it lost most of them", True, 0.6, 200),
    Rule("indexes without a part", "indexes", "one that is being built or dropped", True, 0.0, 1),
    Rule("Dagster's bounded rows in", "rows", "one or two for each program and job", True, 0.1, 30),
    Rule("Dagster's rows in", "rows", "each run and tick is kept for some days", False),
    Rule("Dagster's storage", "MiB", "each run and tick is kept for some days", False),
    Rule("home without Postgres", "MiB", "each run keeps its log for some days", False),
    Rule("rows of run_heartbeats", "rows", "each run has one for a week", False),
    Rule("rows of embedding_attempts", "rows", "the ledger is kept", False),
    Rule("Postgres's temporary files so far", "files", "large sorts", False),
    Rule("Postgres's connections so far", "connections", "Dagster has one for each query", False),
)  # fmt: skip

TABLES = ("embedding_queue", "embedding_attempts", "transcript_chunks", "chunk_embeddings",
          "run_heartbeats", "fathom_transcripts", "published_recordings", "chunk_words",
          "search_lexemes")  # fmt: skip
COUNTED = TABLES[:5]
# autovacuum_vacuum_threshold and _scale_factor, by default.
OUR_TABLES = """
    SELECT relname AS name, n_live_tup AS live,
           greatest(0, n_dead_tup - 50 - 0.2 * n_live_tup)::float AS dead,
           pg_table_size(relid) AS bytes,
           (SELECT sum(pg_relation_size(indexrelid)) FROM pg_index
            JOIN pg_class AS class ON class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
            WHERE indrelid = relid AND amname <> 'hnsw') AS index_bytes
    FROM pg_stat_user_tables WHERE relname = ANY(%s) AND n_live_tup > 100
"""
COUNTS = """
    SELECT (SELECT count(*) FROM embedding_queue), (SELECT count(*) FROM embedding_attempts),
           (SELECT count(*) FROM transcript_chunks), (SELECT count(*) FROM chunk_embeddings),
           (SELECT count(*) FROM run_heartbeats)
"""
# Too few rows to divide by, but each is written often.
SMALL = ("embedding_queue", "vector_index_parts")
SIZES = """
    SELECT relname, pg_total_relation_size(oid) FROM pg_class
    WHERE relname = ANY(%s) AND relnamespace = current_schema()::regnamespace
"""
PARTS = """
    SELECT count(*) AS parts,
           count(*) FILTER (WHERE parts.state = 'sealed' AND 2 * live < rows) AS shrunken,
           (SELECT count(*) FROM chunk_embeddings WHERE id >= (
               SELECT coalesce(max(to_id), 0) FROM vector_index_parts WHERE state = 'sealed'
           )) AS tail,
           (SELECT count(*) FROM pg_class AS class
            JOIN pg_am ON pg_am.oid = class.relam
            WHERE amname = 'hnsw' AND relkind = 'i' AND NOT EXISTS (
                SELECT FROM vector_index_parts WHERE index_name = class.relname)) AS unlisted,
           (SELECT sum(pg_relation_size(class.oid)) FROM pg_class AS class
            JOIN pg_am ON pg_am.oid = class.relam
            WHERE amname = 'hnsw' AND relkind = 'i') / (sum(live) + 1)::float AS bytes
    FROM vector_index_parts AS parts
    LEFT JOIN LATERAL (
        SELECT count(*) AS live FROM chunk_embeddings AS stored
        WHERE stored.model = parts.model AND id >= from_id AND id < to_id) AS counted ON true
"""
ACTIVITY = """
    SELECT CASE datname WHEN 'dagster' THEN 'Dagster' ELSE application_name END AS name,
           count(*) AS connections
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name NOT LIKE 'soak%'
    GROUP BY 1
"""
PROGRAMS = ("embedding-assets", "embedding-assets serve", "embedding-assets index", "Dagster")
DAGSTER_ROWS = "SELECT relname AS name, n_live_tup AS live FROM pg_stat_user_tables"
# Kept for as long as dagster.yaml, KEEP_RUNS_DAYS or the partitions say; or one for each.
GROWING = {
    "runs", "run_tags", "event_logs", "job_ticks", "asset_event_tags", "asset_check_executions",
    "dynamic_partitions", "asset_keys", "backfill_tags", "bulk_actions",
}  # fmt: skip
ROLES = {
    "dagster._daemon": "the daemon",
    "dagster_webserver": "the webserver",
    "code-server": "the code server's proxy",
    "grpc": "the code server",
    "serve": "the search server",
    "dev": "the dev commands",
}


class Sampler(threading.Thread):
    """Takes samples until it is told to end."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.amiss: list[str] = []
        self._installation = installation
        self._began = time.monotonic()
        self._ended = threading.Event()

    def run(self) -> None:
        with (
            _connection(self._installation.url) as ours,
            _connection(self._installation.dagster_url) as dagsters,
        ):
            while not self._ended.is_set():
                began = time.monotonic()
                try:
                    figures = sample(self._installation, ours, dagsters)
                except Exception as error:
                    self.amiss.append(repr(error))
                else:
                    self.samples.append((began - self._began, figures))
                self._ended.wait(max(0.0, SAMPLE_SECONDS - (time.monotonic() - began)))

    def end(self) -> None:
        """Returns when the last sample is taken."""
        self._ended.set()
        self.join(timeout=120)


@contextmanager
def _connection(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(url, autocommit=True, application_name="soak sampler") as connection:
        yield connection


def sample(
    installation: Installation,
    ours: psycopg.Connection[tuple[object, ...]],
    dagsters: psycopg.Connection[tuple[object, ...]],
) -> dict[str, float]:
    """All figures of this moment."""
    figures = {
        **_processes([*installation.search.family(), *installation.dev.family()]),
        **_postgres(installation.server.data_dir),
        **_tables(ours),
        **_files(installation),
    }
    return {**figures, **_dagster(dagsters)}


def _processes(family: Sequence[psutil.Process]) -> dict[str, float]:
    """Memory and open files of the long-lived processes; runs are not among them."""
    figures: dict[str, float] = {"zombie processes": 0}
    for process in family:
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                figures["zombie processes"] += 1
                continue
            role = _role(process.cmdline())
            if role is None:
                continue
            for name, value in (
                (f"memory of {role}", process.memory_info().rss / MIB),
                (f"open files of {role}", process.num_fds()),
            ):
                figures[name] = figures.get(name, 0.0) + value
    return figures


def _role(command: Sequence[str]) -> str | None:
    for argument, role in ROLES.items():
        if argument in command:
            return role
    return None


def _postgres(data: Path) -> dict[str, float]:
    """The memory that Postgres's processes share with nobody."""
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
    total = 0
    for process in [postmaster, *postmaster.children()]:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    leftover = sum(1 for _ in data.glob("base/pgsql_tmp/*"))
    return {"memory of Postgres": total / MIB, "temporary files of Postgres": leftover}


def _tables(ours: psycopg.Connection[tuple[object, ...]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    counted = ours.execute(COUNTS).fetchone()
    assert counted is not None
    figures |= {f"rows of {name}": _number(n) for name, n in zip(COUNTED, counted, strict=True)}
    for name, live, dead, size, index_size in ours.execute(OUR_TABLES, [list(TABLES)]):
        figures[f"dead rows past autovacuum's threshold of {name}"] = _number(dead)
        figures[f"bytes a row of {name}"] = _number(size) / _number(live)
        figures[f"bytes a row of indexes of {name}"] = _number(index_size) / _number(live)
    for name, size in ours.execute(SIZES, [list(SMALL)]):
        figures[f"size of {name}"] = _number(size) / 1024
    parts = ours.execute(PARTS).fetchone()
    assert parts is not None
    names = ("parts of the vector index", "parts that lost most", "vectors outside of any part",
             "indexes without a part", "bytes a vector of the vector index")  # fmt: skip
    # Before the first part there is no index whose bytes could be divided.
    known = zip(names, parts, strict=True)
    figures |= {name: _number(value) for name, value in known if value is not None}
    open_ones = {str(name): _number(n) for name, n in ours.execute(ACTIVITY)}
    figures |= {f"connections of {name}": open_ones.get(name, 0.0) for name in PROGRAMS}
    return {**figures, "connections of all": sum(open_ones.values())}


def _dagster(dagsters: psycopg.Connection[tuple[object, ...]]) -> dict[str, float]:
    rows = {str(name): _number(live) for name, live in dagsters.execute(DAGSTER_ROWS)}
    row = dagsters.execute(
        "SELECT pg_database_size(current_database()),"
        " (SELECT sum(temp_files) FROM pg_stat_database),"
        " (SELECT sum(sessions) FROM pg_stat_database)"
    ).fetchone()
    assert row is not None
    return {
        **{f"Dagster's rows in {name}": rows[name] for name in GROWING & rows.keys()},
        **{
            f"Dagster's bounded rows in {name}": live
            for name, live in rows.items()
            if name not in GROWING
        },
        "Dagster's storage": _number(row[0]) / MIB,
        "Postgres's temporary files so far": _number(row[1]),
        "Postgres's connections so far": _number(row[2]),
    }


def _files(installation: Installation) -> dict[str, float]:
    """What lies in TMPDIR, and in the home beside Postgres's data."""
    temporary, temporary_bytes = _size(installation.temporary)
    others = [each for each in installation.server.home.iterdir() if each.name != "postgres"]
    all_bytes = sum(_size(each)[1] for each in others)
    return {
        "temporary files": temporary,
        "temporary bytes": temporary_bytes / MIB,
        "home without Postgres": all_bytes / MIB,
    }


def _size(folder: Path) -> tuple[int, int]:
    files, total = 0, folder.lstat().st_size
    for path in folder.rglob("*"):
        with suppress(OSError):  # it may go at this moment
            files += 1
            total += path.lstat().st_size
    return files, total


def _number(value: object) -> float:
    return float(value or 0)  # type: ignore[arg-type]
