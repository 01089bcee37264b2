"""What health consists of: findings with their severities, at one moment."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from embedding_assets.health.numbers import Cost, DeadLetter, Numbers, RunInFlight

Figure = int | float | str | None


class Severity(StrEnum):
    """How bad something is; later members are worse."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1, 2: also the exit code of a probe."""
        return list(Severity).index(self)

    # All four are defined, because str's own comparisons are alphabetical.
    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result: what is the matter, its numbers, and what to do."""

    name: str
    severity: Severity
    message: str
    action: str | None = None  # a command, or what to look at; None while healthy
    figures: dict[str, Figure] = field(default_factory=dict)
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """All findings of one moment; without numbers where the database could not be read."""

    checked_at: datetime
    findings: tuple[Finding, ...]
    numbers: Numbers | None
    dead_letters: tuple[DeadLetter, ...] = ()  # the worst few
    runs_in_flight: tuple[RunInFlight, ...] = ()  # all
    costs: tuple[Cost, ...] = ()  # of today, by model and lane

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return max((finding.severity for finding in self.findings), default=Severity.HEALTHY)

    def with_more(self, findings: Iterable[Finding]) -> "Health":
        """The same with more findings behind these."""
        return replace(self, findings=(*self.findings, *findings))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, apart from the times."""
        return {
            "status": str(self.severity),
            "checked_at": self.checked_at,
            "checks": [asdict(finding) for finding in self.findings],
            "numbers": None if self.numbers is None else asdict(self.numbers),
            "dead_letters": [asdict(letter) for letter in self.dead_letters],
            "runs_in_flight": [asdict(run) for run in self.runs_in_flight],
            "costs_today": [asdict(cost) for cost in self.costs],
        }


def at_least(number: float, warning: float, critical: float) -> Severity:
    """How bad a number is of which more is worse."""
    if number >= critical:
        return Severity.CRITICAL
    return Severity.WARNING if number >= warning else Severity.HEALTHY


def count(number: int, thing: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def iso(when: datetime | None) -> str | None:
    """A time in UTC, to the second, in ISO 8601."""
    return None if when is None else when.astimezone(UTC).isoformat(timespec="seconds")
