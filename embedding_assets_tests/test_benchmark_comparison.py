"""What a benchmark's table says of figures that a commit holds."""

import importlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import comparison
from benchmarks.__main__ import summary, table
from benchmarks.comparison import Measured, compared, dumps, gone, loads, merge, worse
from benchmarks.measuring import Figure, at_least

RATE = Figure("engine", 1_500, "chunks/s", 0.5, "COPY")
SIZE = Figure("peak memory", 100.0, "MiB")
SENT = Figure("sent", 9, "tokens", more_is_better=True)


def section(*figures: Figure) -> Measured:
    return Measured(list(figures), 12.0, "2030-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (RATE, replace(RATE, ratio=0.41)),
        (SIZE, replace(SIZE, value=121.0)),
        (Figure("a tick", 1.0, "s", 1.0, "idle"), Figure("a tick", 1.0, "s", 1.3, "idle")),
        (SENT, replace(SENT, value=7)),
        (Figure("errors", 0, "errors"), Figure("errors", 1, "errors")),
        (Figure("found", 1, "chunks/s", 1.0), Figure("found", 0, "chunks/s", 0.0)),
    ],
)  # fmt: skip
def test_more_than_a_fifth_worse_is_said_and_the_way_back_is_not(was: Figure, now: Figure) -> None:
    assert worse(now, was)
    assert worse(was, now) == ""
    assert worse(now, now) == ""


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (RATE, replace(RATE, ratio=0.43)),  # noise
        (RATE, replace(RATE, value=100)),  # another machine, on which COPY is as much slower
        (Figure("a tick", 1.0, "s"), Figure("a tick", 9.0, "s")),
        (Figure("loaded", 900, "chunks/CPU s"), Figure("loaded", 90, "chunks/CPU s")),
        (Figure("parts", 4, ""), Figure("parts", 9, "")),  # neither way is better
        (Figure("a peer", None, "", note="no wheel"), Figure("a peer", None, "", note="no wheel")),
    ],
)  # fmt: skip
def test_noise_times_and_what_has_no_better_way_are_not_judged(was: Figure, now: Figure) -> None:
    assert worse(now, was) == worse(was, now) == ""


def test_times_worse_are_named() -> None:
    assert worse(replace(RATE, ratio=0.25), RATE) == "2.00 times worse"
    assert worse(replace(SIZE, value=150), SIZE) == "1.50 times worse"


def test_an_aim_that_was_reached_and_is_missed_is_worse_however_little() -> None:
    reached, missed = (Figure("recall", n, "", n, **at_least(0.95, n)) for n in (0.96, 0.94))

    assert worse(missed, reached) == "no longer reaches its aim"
    assert worse(reached, missed) == worse(missed, missed) == ""


def test_what_can_no_longer_be_measured_is_worse() -> None:
    assert worse(Figure("a peer", None, "chunks/s"), Figure("a peer", 900, "chunks/s"))


def test_figures_are_found_again_by_what_they_are_and_their_unit() -> None:
    wall, cpu = Figure("engine", 1, "chunks/s", 1.0), Figure("engine", 2, "chunks/CPU s", 2.0)
    before = section(cpu, Figure("dropped", 1, "s"), wall)
    now = section(replace(wall, note="this time"), cpu, Figure("added", 1, "s"))

    assert [was for _, was, _ in compared(now, before)] == [wall, cpu, None]
    assert [each.what for each in gone(now, before)] == ["dropped"]
    assert [was for _, was, _ in compared(now, None)] == [None] * 3
    assert gone(now, None) == []


def test_a_file_holds_all_but_digits_that_say_nothing() -> None:
    full = Figure("a", 1.25, "chunks/s", 0.5, "COPY", ">= 0.55", False, True, "a note")
    results = {"one": section(full, Figure("b", None, "", note="no wheel")), "two": section(SIZE)}

    assert loads(dumps(results)) == results
    rounded = loads(dumps({"one": section(replace(RATE, value=1234.5678))}))
    assert rounded["one"].figures[0].value == 1235


def test_measuring_a_part_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    merge(path, {"one": section(RATE), "two": section(SIZE)})
    merge(path, {"one": section(SIZE)})

    assert loads(path.read_text()) == {"one": section(SIZE), "two": section(SIZE)}


def test_the_table_and_its_last_lines_name_what_got_worse() -> None:
    results = {"throughput": section(replace(RATE, ratio=0.25), SIZE)}
    before = {"throughput": section(RATE, SIZE, Figure("dropped", 1, "s"))}

    *lines, total = summary(results, before)

    assert lines == [
        "throughput, engine (chunks/s): 0.25, was 0.50: 2.00 times worse",
        "throughput, dropped: no longer measured",
    ]
    assert total.startswith("0.2 minutes in all")
    assert list(table(results, before).columns[-1].cells) == ["", "2.00 times worse", ""]
    assert summary(results, results) == ["nothing is worse than what is committed", total]
    assert summary(results, {}) == [total]


def test_the_last_commit_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "benchmarks" / "figures.json"
    path.parent.mkdir()
    monkeypatch.setattr(comparison, "ROOT", tmp_path)
    monkeypatch.setattr(comparison, "FIGURES", path)
    assert comparison.committed() == {}  # no repository

    merge(path, {"one": section(RATE)})
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm a"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    merge(path, {"one": section(SIZE)})

    assert comparison.committed() == {"one": section(RATE)}


def test_what_is_committed_is_as_it_is_written_and_each_figure_is_there_once() -> None:
    told = loads(comparison.FIGURES.read_text(encoding="utf-8"))

    for name, measured in told.items():
        importlib.import_module(f"benchmarks.{name}")
        keys = [(figure.what, figure.unit) for figure in measured.figures]
        assert len(set(keys)) == len(keys), name
    assert json.loads(dumps(told)) == json.loads(comparison.FIGURES.read_text(encoding="utf-8"))
