"""What the settings say of the synchronisation."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Options:
    """How Fathom is synchronised."""

    base_url: str
    since: date  # the first day whose meetings are read
    reread: timedelta = timedelta(days=7)  # for so long a meeting is read again
    listing_hour: int = 3  # UTC
    withdraws: bool = False  # calls that are gone at the recorder
    believes: bool = False  # that many are gone at once
    again_from: datetime | None = None  # all of them are read again from here
    budget: timedelta = timedelta(minutes=12)  # of one run
