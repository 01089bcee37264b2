"""Figures beside the committed ones: what got worse on a machine whose times mean little.

Seconds, and what is counted in a second, differ by a third from run to run and by more from machine
to machine, so they are shown and not judged. Ratios within one run are judged, and so are sizes and
counts.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, Figure

FIGURES = Path(__file__).parent / "figures.json"
TOLERANCE = 1.2  # so many times worse is noise
DIGITS = 4  # that are kept
TIMES = {"s", "ms", "us"}
LESS_IS_BETTER = TIMES | {
    "MiB", "bytes", "bytes/recording", "bytes/chunk", "chunks", "requests", "opened", "errors",
    "hits",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one measurement, and what taking them took."""

    figures: Sequence[Figure]
    seconds: float
    at: str  # when, in UTC


def compared(now: Measured, before: Measured | None) -> Iterator[tuple[Figure, Figure | None, str]]:
    """Each figure, what it was, and how it is worse: empty if it is not, or is not judged."""
    earlier = _by_key(before)
    for figure in now.figures:
        was = earlier.get(_key(figure))
        yield figure, was, "" if was is None else worse(figure, was)


def gone(now: Measured, before: Measured | None) -> list[Figure]:
    """Figures that were there, and are not any more."""
    there = {_key(figure) for figure in now.figures}
    return [figure for key, figure in _by_key(before).items() if key not in there]


def worse(figure: Figure, was: Figure) -> str:
    """How a figure is worse than it was; empty if it is not, or if nothing can be said."""
    if figure.value is None and was.value is not None:
        return "can no longer be measured"
    if was.reached and figure.reached is False:
        return "no longer reaches its aim"
    new, old, more = _judged(figure), _judged(was), _more_is_better(figure)
    if new is None or old is None or more is None:
        return ""
    smaller, larger = (new, old) if more else (old, new)
    if larger <= smaller * TOLERANCE:
        return ""
    return f"{larger / smaller:.2f} times worse" if smaller > 0 else "worse"


def _by_key(measured: Measured | None) -> dict[tuple[str, str], Figure]:
    return {} if measured is None else {_key(figure): figure for figure in measured.figures}


def _key(figure: Figure) -> tuple[str, str]:
    return figure.what, figure.unit


def _judged(figure: Figure) -> float | None:
    """The number that may be compared with another run's, if there is one."""
    return figure.ratio if figure.ratio is not None or _is_timed(figure.unit) else figure.value


def _more_is_better(figure: Figure) -> bool | None:
    """Which way a figure is better, by its own word or by its unit; None: neither."""
    if figure.more_is_better is not None:
        return figure.more_is_better
    if figure.unit in LESS_IS_BETTER:
        return False
    return True if _is_timed(figure.unit) else None


def _is_timed(unit: str) -> bool:
    return unit in TIMES or unit.endswith(("/s", "/CPU s"))


def committed() -> dict[str, Measured]:
    """The figures in the last commit; none where there is no git, or where none are committed."""
    name = FIGURES.relative_to(ROOT).as_posix()
    done = subprocess.run(
        ["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return loads(done.stdout) if done.returncode == 0 else {}


def loads(text: str) -> dict[str, Measured]:
    """Measurements by name, from what `dumps` wrote."""
    told: dict[str, Any] = json.loads(text)
    return {
        name: Measured([Figure(**figure) for figure in each.pop("figures")], **each)
        for name, each in told.items()
    }


def dumps(results: dict[str, Measured]) -> str:
    """Measurements as JSON, a few digits a number, a line for each figure, for `git diff`."""
    sections = []
    for name, each in sorted(results.items()):
        lines = ",\n".join(f"      {json.dumps(_short(figure))}" for figure in each.figures)
        sections.append(
            f'  {json.dumps(name)}: {{\n    "at": {json.dumps(each.at)},\n'
            f'    "seconds": {each.seconds:.0f},\n    "figures": [\n{lines}\n    ]\n  }}'
        )
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _short(figure: Figure) -> dict[str, Any]:
    """The fields that say something."""
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in asdict(figure).items()
        if value not in (None, "") or name in {"value", "unit"}
    }


def merge(path: Path, results: dict[str, Measured]) -> None:
    """Writes measurements into a file, beside those of other names that it holds."""
    there = loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(dumps(there | results), encoding="utf-8")
