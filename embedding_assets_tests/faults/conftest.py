"""The table of faults: how many moments each row tries, and what was seen at them."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedding_assets.server.embedded_postgres import EmbeddedPostgres
from embedding_assets_tests.checkout import short_folder
from embedding_assets_tests.faults.scene import Scene, corpus_server, publish_corpus
from embedding_assets_tests.loopback_api import LoopbackAPI
from embedding_assets_tests.system.conftest import DIMENSIONS

PROPERTY = "fault"


class Row:
    """A row of the table: what is in the middle of its work, and what happens to it."""

    def __init__(self, place: str, fault: str) -> None:
        self.told: dict[str, Any] = {"place": place, "fault": fault, "moments": 0, "seen": {}}

    def moment(self, *seen: str) -> None:
        """One more moment was tried, and this was seen at it."""
        self.told["moments"] += 1
        for what in seen:
            self.saw(what)

    def saw(self, what: str) -> None:
        """Counts it."""
        self.told["seen"][what] = self.told["seen"].get(what, 0) + 1


BeginRow = Callable[[str, str], Row]


@pytest.fixture
def row(request: pytest.FixtureRequest) -> BeginRow:
    """Begins a row; tests with the same place and fault share it."""

    def begin(place: str, fault: str) -> Row:
        row = Row(place, fault)
        request.node.user_properties.append((PROPERTY, row.told))
        return row

    return begin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `moment` is run once for each; a mark says how many there are."""
    if "moment" in metafunc.fixturenames:
        (mark,) = metafunc.definition.iter_markers("moments")
        metafunc.parametrize("moment", range(mark.kwargs[metafunc.config.getoption("--faults")]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only the whole table has."""
    if config.getoption("--faults") == "some":
        left_out = [item for item in items if item.get_closest_marker("whole_table")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> int:
    """How many moments a test tries that tries them itself."""
    mark = request.node.get_closest_marker("moments")
    return int(mark.kwargs[request.config.getoption("--faults")])


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What decides at which moment: another for each test, the same for the same seed."""
    return random.Random(f"{request.config.getoption('--faults-seed')} {request.node.name}")


@pytest.fixture
def api() -> Iterator[LoopbackAPI]:
    with LoopbackAPI(dimensions=DIMENSIONS, latency=0.02) as api:
        yield api


@pytest.fixture(scope="session")
def published(server: EmbeddedPostgres, migrated_template: str) -> str:
    """The name of a database whose recordings are embedded, that others are copied from."""
    publish_corpus(server, "published", template=migrated_template)
    return "published"


@pytest.fixture
def scene(
    server: EmbeddedPostgres, published: str, api: LoopbackAPI, chance: random.Random
) -> Iterator[Scene]:
    """Recordings that were edited since they were published, and somebody who reads them."""
    with Scene.on(server, published, api, chance) as scene:
        yield scene


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may end, with the corpus embedded in it."""
    with short_folder("faults") as folder, corpus_server(folder) as server:
        yield server


@pytest.fixture
def own_scene(
    own_server: EmbeddedPostgres, api: LoopbackAPI, chance: random.Random
) -> Iterator[Scene]:
    """The same on a server that the test may end."""
    with Scene.on(own_server, "published", api, chance) as scene:
        yield scene


def pytest_report_header(config: pytest.Config) -> str:
    """Which moments are tried."""
    return (
        f"faults: {config.getoption('--faults')} moments,"
        f" --faults-seed={config.getoption('--faults-seed')}"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints the table, and writes it where it was asked for."""
    rows = _rows(terminalreporter)
    if not rows:
        return
    table = "\n".join(
        [
            "| what | the fault | moments | what was seen |",
            "| --- | --- | --- | --- |",
            *(_line(key, *counted) for key, counted in rows.items()),
        ]
    )
    total = sum(moments for moments, _ in rows.values())
    end = f"{total:,} moments, seed {config.getoption('--faults-seed')}"
    terminalreporter.section("the table of faults")
    terminalreporter.write_line(f"{table}\n\n{end}")
    path: Path | None = config.getoption("--faults-report")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{table}\n\n{end}\n")


def _rows(
    terminalreporter: pytest.TerminalReporter,
) -> dict[tuple[str, str], tuple[int, Counter[str]]]:
    rows: dict[tuple[str, str], tuple[int, Counter[str]]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            told = [value for name, value in report.user_properties if name == PROPERTY]
            for each in told if report.when == "call" else []:
                key = each["place"], each["fault"]
                moments, seen = rows.get(key, (0, Counter()))
                seen.update(each["seen"])
                seen.update({"FAILED": 1} if outcome == "failed" else {})
                rows[key] = moments + each["moments"], seen
    return rows


def _line(key: tuple[str, str], moments: int, seen: Counter[str]) -> str:
    what = "; ".join(f"{text} {times:,}" for text, times in sorted(seen.items()))
    return f"| {key[0]} | {key[1]} | {moments:,} | {what} |"
