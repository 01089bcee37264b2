"""Judges the figures of a soak: what should stay flat, and whether it did.

A figure is judged by two medians: of the first and of the last third of what came after the
warm-up. Medians, because samples jump: a run more or less at the moment of a sample is some
connections and megabytes. A leak moves the median of all samples that follow it; noise moves it
by no more than some standard errors, which the figure's own scatter tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import median

# Caches fill, pools open and the corpus gets to its size: ten minutes of an hour; a short run has
# relatively more of it.
WARM_UP_SHARE = 1 / 6
SHORT_WARM_UP_SHARE = 0.4
SHORT_MINUTES = 30
# Of some forty figures none is to fail by chance.
STANDARD_ERRORS = 4.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What is expected of all figures whose name begins so.

    A judged figure may end `ratio` of its value and `allowance` of its unit above where it began,
    and STANDARD_ERRORS of the medians.
    """

    begins: str
    unit: str
    why: str
    is_judged: bool = True
    ratio: float = 0.0
    allowance: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure: its values, its growth, and whether that is allowed; None: it is not judged."""

    name: str
    unit: str
    start: float
    after_warm_up: float
    end: float
    most: float
    per_hour: float
    allowed: float | None
    is_flat: bool | None

    @property
    def told(self) -> str:
        """In words, for a figure that is judged."""
        return (
            f"{self.name}: {self.after_warm_up:,.1f} {self.unit} after the warm-up,"
            f" {self.end:,.1f} at the end, where {self.allowed or 0:,.1f} are allowed"
        )


Sample = tuple[float, Mapping[str, float]]  # seconds since the start, the figures


def warm_up_seconds(minutes: float) -> float:
    """How long a run of so many minutes is not judged."""
    share = SHORT_WARM_UP_SHARE if minutes < SHORT_MINUTES else WARM_UP_SHARE
    return 60 * minutes * share


def judge(samples: Sequence[Sample], warm_up: float, rules: Sequence[Rule]) -> list[Verdict]:
    """A verdict for each figure, in the order of the rules and then of the names.

    Args:
        samples: in the order they were taken; a figure may be missing in some.
        warm_up: seconds from the start that are not judged.
        rules: the first one that fits counts.

    Raises:
        ValueError: no rule fits a figure.
    """
    names = {name for _, figures in samples for name in figures}
    ruled = sorted((_rule(name, rules), name) for name in names)
    verdicts = [_verdict(name, rules[place], samples, warm_up) for place, name in ruled]
    return [each for each in verdicts if each is not None]


def _rule(name: str, rules: Sequence[Rule]) -> int:
    for place, rule in enumerate(rules):
        if name.startswith(rule.begins):
            return place
    raise ValueError(f"no rule says what to expect of {name}")


def _verdict(name: str, rule: Rule, samples: Sequence[Sample], warm_up: float) -> Verdict | None:
    series = [(at, figures[name]) for at, figures in samples if name in figures]
    warm = [(at, value) for at, value in series if at >= warm_up]
    if not warm:
        return None
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    before, after = (median(value for _, value in part) for part in (first, last))
    scatter = STANDARD_ERRORS * hypot(*(_standard_error(part) for part in (first, last)))
    apart = median(at for at, _ in last) - median(at for at, _ in first)
    allowed = before * (1 + rule.ratio) + rule.allowance + scatter if rule.is_judged else None
    return Verdict(
        name=name,
        unit=rule.unit,
        start=series[0][1],
        after_warm_up=before,
        end=after,
        most=max(value for _, value in series),
        per_hour=3600 * (after - before) / apart if apart else 0.0,
        allowed=allowed,
        is_flat=None if allowed is None else after <= allowed,
    )


def _standard_error(part: Sequence[tuple[float, float]]) -> float:
    """Of the median, from the median absolute deviation, as if the values were normal."""
    values = [value for _, value in part]
    middle = median(values)
    deviation = 1.48 * median(abs(value - middle) for value in values)
    return 1.25 * deviation / sqrt(len(values))
