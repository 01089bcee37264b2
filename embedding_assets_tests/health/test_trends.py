"""The frames of the last days, and that the picture shows something whatever they hold."""

import io
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot
from PIL import Image

from embedding_assets.health.trends import DAYS, STATES, Trends, picture, trends, window

NOW = datetime(2026, 3, 15, 9, 20, tzinfo=UTC)
SINCE = datetime(2026, 3, 2, tzinfo=UTC)
MOST_BYTES = 30_000


def attempts(hour: datetime, **figures: Any) -> dict[str, Any]:
    """A row as `attempts_by_hour` gives it."""
    nothing = {"outcome": "published", "error_kind": None, "attempts": 1, "embedded": 0}
    return {"hour": hour, **nothing, "cost_usd": None, **figures}


def at(day: int, hour: int) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def counted(**states: int) -> dict[str, int]:
    return {**dict.fromkeys(STATES, 0), **states}


def busy() -> Trends:
    """Two weeks in which every hour is different."""
    hours = [
        SINCE + timedelta(hours=n) for n in range(24 * DAYS) if SINCE + timedelta(hours=n) < NOW
    ]
    rows = [
        attempts(hour, embedded=n * 7919 % 1000, cost_usd=n % 17 / 100)
        for n, hour in enumerate(hours)
    ]
    for n, hour in enumerate(hours):
        kind = ("transient", "statement_timeout", "invalid_input", "crashed", "configuration")[
            n % 5
        ]
        rows.append(attempts(hour, outcome="failed", error_kind=kind, attempts=n * 31 % 7))
    snapshots = {
        hour: counted(
            pending=n * 104729 % 300,
            processing=n * 31 % 50,
            failed=n % 9,
            dead_letter=n // 40,
            completed=90_000 + n,
        )
        for n, hour in enumerate(hours)
    }
    return trends(rows, snapshots, NOW)


def test_the_window_holds_whole_days_and_today() -> None:
    assert window(NOW) == SINCE
    shown = trends([], {}, NOW)
    assert (shown.since, shown.until) == (SINCE, NOW)
    assert len(shown.cost) == DAYS == 14
    assert list(shown.embeddings.index[[0, -1]]) == [SINCE, at(15, 9)]


def test_hours_without_an_attempt_are_zeros() -> None:
    rows = [
        attempts(at(3, 4), embedded=5),
        attempts(at(3, 4), embedded=2, outcome="failed", error_kind="transient"),
        attempts(at(15, 9), embedded=11),
    ]
    embeddings = trends(rows, {}, NOW).embeddings
    assert embeddings[at(3, 4)] == 7
    assert embeddings[at(3, 5)] == 0
    assert embeddings[at(15, 9)] == 11
    assert embeddings.sum() == 18
    assert len(embeddings) == 13 * 24 + 10
    assert not embeddings.isna().any()


def test_failures_are_told_by_kind_and_what_was_given_back_for_a_reason_is_one() -> None:
    rows = [
        attempts(at(3, 4), attempts=50),
        attempts(at(3, 4), attempts=2, outcome="failed", error_kind="transient"),
        attempts(at(3, 6), attempts=3, outcome="released", error_kind="configuration"),
        attempts(at(3, 6), attempts=9, outcome="released"),
    ]
    failures = trends(rows, {}, NOW).failures
    assert sorted(failures.columns) == ["configuration", "transient"]
    assert failures["transient"][at(3, 4)] == 2
    assert failures["configuration"][at(3, 6)] == 3
    assert failures.to_numpy().sum() == 5


def test_cost_is_by_day_in_utc_and_an_unknown_price_is_no_zero() -> None:
    rows = [
        attempts(at(3, 0), cost_usd=0.25),
        attempts(at(3, 23), cost_usd=0.5),
        attempts(at(4, 0), cost_usd=1.0),
        attempts(at(5, 7), cost_usd=None),
    ]
    cost = trends(rows, {}, NOW).cost
    assert cost[at(3, 0)] == 0.75
    assert cost[at(4, 0)] == 1.0
    assert math.isnan(cost[at(5, 0)])
    assert cost[at(6, 0)] == 0.0


def test_snapshots_are_in_order_of_time_and_a_state_that_was_not_counted_is_a_gap() -> None:
    old = {state: (None if state == "failed" else 4) for state in STATES}
    snapshots: dict[datetime, Any] = {
        NOW: counted(pending=2),
        at(3, 1): old,
        SINCE - timedelta(seconds=1): counted(pending=99),
    }
    queue = trends([], snapshots, NOW).queue
    assert list(queue.index) == [at(3, 1), NOW]
    assert list(queue["pending"]) == [4, 2]
    assert math.isnan(queue["failed"].iloc[0])


CASES = {
    "nothing at all": trends([], {}, NOW),
    "the first snapshot": trends([], {NOW: counted(pending=3)}, NOW),
    "one attempt at an unknown price": trends([attempts(at(15, 9), embedded=1)], {}, NOW),
    "an attempt that cost nothing": trends([attempts(at(15, 9), cost_usd=0.0)], {}, NOW),
    "a kind that failed": trends(
        [attempts(at(15, 9), outcome="failed", error_kind="transient")], {}, NOW
    ),
    "at midnight": trends([], {SINCE: counted()}, datetime(2026, 3, 15, tzinfo=UTC)),
    "two busy weeks": busy(),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_drawn_whatever_there_is_and_stays_small(case: str) -> None:
    drawn = picture(CASES[case])
    with Image.open(io.BytesIO(drawn)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width <= 800
        colours = image.convert("RGB").getcolors(1 << 16)
    assert colours is not None
    assert len(colours) > 2
    assert len(drawn) <= MOST_BYTES
    assert pyplot.get_fignums() == []


def _draw(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A picture drawn by a process of its own, which has nothing else in its environment."""
    program = (
        "from datetime import UTC, datetime\n"
        "from embedding_assets.health.trends import picture, trends\n"
        "print(len(picture(trends([], {}, datetime.now(UTC)))))\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).resolve().parents[2],
        env={"PATH": os.environ["PATH"], **environment},
    )


def test_no_word_is_printed_and_no_screen_is_needed_in_a_fresh_home(tmp_path: Path) -> None:
    fonts = tmp_path / "made" / "on" / "demand"
    drawn = _draw(
        {
            "HOME": "/proc/nowhere",  # nobody can write there, root included
            "MPLCONFIGDIR": str(fonts),
            "DISPLAY": ":99",
            "MPLBACKEND": "tkagg",
        }
    )
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert int(drawn.stdout) > 0
    assert list(fonts.glob("fontlist*"))
