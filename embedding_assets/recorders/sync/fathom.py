"""Keeps the calls here equal to what Fathom has: reads what is new, reads again, lists.

Fathom tells of no change and no deletion. So the last days are read again for late and edited
transcripts, and once a night all meetings are listed, without their words, and compared with ours.
Whatever is read is stored before it counts as read, so a killed run is resumed where it was.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from embedding_assets.engine.database import Connection, Database
from embedding_assets.engine.errors import InvalidInputError, TransientError
from embedding_assets.recorders.statements import sql
from embedding_assets.recorders.sync.api import FathomAPI, KeyRefusedError, OutOfTimeError, Page
from embedding_assets.recorders.sync.gone import withdraw_gone_calls
from embedding_assets.recorders.sync.keys import Key
from embedding_assets.recorders.sync.meetings import Taken, created_at, meeting_id, take
from embedding_assets.recorders.sync.options import Options
from embedding_assets.recorders.sync.windows import SECOND, Window, walk

LATE = timedelta(hours=1)  # a meeting may be seen so long after the moment it was created at
WAITS = timedelta(days=1)  # for so long every run asks for a transcript that is not there
WAITS_AT_NIGHT = timedelta(days=30)  # for so long every listing does
REREAD_EVERY = timedelta(hours=1)
# More meetings than this gone at once are not believed: a key of another user, say, or a fault.
MOST_GONE = 20
MOST_GONE_SHARE = 0.1


@dataclass(slots=True)
class KeyReport:
    """What became of one key's meetings in this run."""

    name: str
    is_current: bool = False  # everything new was read
    problem: str | None = None  # why not, or why the rest was not done
    is_refused: bool = False
    changed: set[str] = field(default_factory=set)  # recording ids
    unreadable: set[str] = field(default_factory=set)  # meeting ids
    gone: int = 0
    told: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SyncReport:
    """What became of each key, and which calls were withdrawn."""

    keys: list[KeyReport]
    withdrawn: list[str] = field(default_factory=list)

    @property
    def is_current(self) -> bool:
        """Whether everything new was read with every key that is not refused, and with one."""
        taken = [each for each in self.keys if not each.is_refused]
        return bool(taken) and all(each.is_current for each in taken)


def synchronise(
    database: Database,
    keys: Sequence[Key],
    options: Options,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    tell: Callable[[str], None] = lambda _: None,
) -> SyncReport:
    """Reads what is new with every key, and as much of the rest as there is time for.

    Args:
        database: the recorders' tables, which it writes.
        keys: those first that were read the longest ago.
        options: of the settings.
        now: the recorder's clock.
        tell: gets a line for whatever people are to know, without anything that was said.

    Raises:
        EmbeddingAssetsError: the database does not take what is read.
    """
    by_name = {key.name: key for key in keys}
    ordered = database.retrying(
        lambda c: [row.name for row in sql.keys_by_age(c, key_names=list(by_name))]
    )
    ends_at = time.monotonic() + options.budget.total_seconds()
    reports = []
    for number, name in enumerate(ordered):
        left = ends_at - time.monotonic()
        deadline = time.monotonic() + left / (len(ordered) - number)
        report = KeyReport(name)
        with FathomAPI(by_name[name].secret, options.base_url) as api:
            _KeySync(database, api, options, now, deadline, tell, report).run()
        reports.append(report)
    withdrawn = withdraw_gone_calls(database, list(by_name)) if options.withdraws else []
    for recording_id in withdrawn:
        tell(f"recording {recording_id} is gone at the recorder, and was withdrawn")
    return SyncReport(reports, withdrawn)


def forget_key(database: Database, name: str) -> None:
    """Forgets a key that is used no more, and what it saw. Its calls stay.

    Raises:
        InvalidInputError: no key had this name.
    """
    known = database.retrying(lambda c: [row.key_name for row in sql.key_names(c)])
    if name not in known:
        raise InvalidInputError(
            f"no key has the name {name}: known are {', '.join(known) or 'none'}"
        )
    database.retrying(lambda c: sql.forget_key(c, key_name=name))


@dataclass(slots=True)
class _KeySync:
    """One key's run."""

    database: Database
    api: FathomAPI
    options: Options
    now: Callable[[], datetime]
    deadline: float
    tell: Callable[[str], None]
    report: KeyReport

    def run(self) -> None:
        """Reads what is new, then the last days again, then lists; ends with the time."""
        name = self.report.name
        try:
            self._read_new()
            self._read_waiting()
            self._read_again()
            self._list()
            self._confirm_what_is_missing()
        except OutOfTimeError as error:
            self.report.problem = f"{error}: the next run goes on"
        except KeyRefusedError as error:
            self.report.problem, self.report.is_refused = str(error), True
            self._write(sql.refused, reason=str(error), at=self.now())
        except TransientError as error:
            self.report.problem = f"{error}: the next run tries again"
        if self.report.problem:
            self.tell(f"key {name}: {self.report.problem}")

    def _read_new(self) -> None:
        began = self.now()
        state = self._state()
        start = self._beginning
        if state.walked_until is not None:
            start = max(start, state.walked_until - LATE)
        for window in self._walk(start, began):
            self._take(window, partial(sql.walked, until=window.end, at=self.now()))
        self._write(sql.read_to_now, at=began)
        self.report.is_current = True
        if start <= began - self.options.reread:
            self._write(sql.reread_ended, at=began)

    def _read_waiting(self) -> None:
        """Asks again for transcripts that were not there; what is new does not wait for that."""
        began = self.now()
        oldest = self._write(sql.oldest_waiting, since=began - WAITS)
        if oldest is not None:
            for window in self._walk(oldest, began):
                self._take(window)

    def _read_again(self) -> None:
        if self.options.again_from is not None:
            self._write(sql.reread, until=self.options.again_from)
        state, began = self._state(), self.now()
        is_fresh = state.reread_at is not None and state.reread_at > began - REREAD_EVERY
        if is_fresh and state.reread_until is None:
            return
        horizon = max(began - self.options.reread, self._beginning)
        for window in self._walk(state.reread_until or horizon, began):
            self._take(window, partial(sql.reread, until=window.end))
        self._write(sql.reread_ended, at=began)

    def _list(self) -> None:
        """All meetings, without their words; what is not here is asked for with them."""
        began, state = self.now(), self._state()
        if state.listing_began_at is None:
            if not _is_listing_due(state.listed_at, began, self.options.listing_hour):
                return
            self._write(sql.begin_listing, at=began, since=self._beginning)
            state = self._state()
        # What was created while it goes on is read by the runs, and counts as seen.
        for window in self._walk(
            state.listed_until, state.listing_began_at, with_transcripts=False
        ):
            ids = sorted({meeting_id(each) for each in window.meetings})
            known = self._known(ids, began)
            if not known.issuperset(ids):
                for lacking in self._walk(window.start, window.end):
                    self._take(lacking)
            self.database.retrying(
                partial(self._listed, ids=ids, listing=state.listing, until=window.end)
            )
        self._write(sql.end_listing, listing=state.listing, since=self._beginning)

    def _listed(
        self, connection: Connection, *, ids: list[str], listing: int, until: datetime
    ) -> None:
        name = self.report.name
        sql.list_meetings(connection, key_name=name, meeting_ids=ids)
        sql.listed(connection, key_name=name, listing=listing, until=until)

    def _known(self, ids: list[str], began: datetime) -> set[str]:
        return self.database.retrying(
            lambda connection: {
                row.meeting_id
                for row in sql.known_meetings(
                    connection,
                    key_name=self.report.name,
                    meeting_ids=ids,
                    waiting_since=began - WAITS_AT_NIGHT,
                )
            }
        )

    def _confirm_what_is_missing(self) -> None:
        """Asks once more for what two listings did not see; what is not there now is gone."""
        name = self.report.name
        missing, sighted = self.database.retrying(
            lambda c: (list(sql.missing_meetings(c, key_name=name)), sql.sighted(c, key_name=name))
        )
        if len(missing) > max(MOST_GONE, MOST_GONE_SHARE * sighted) and not self.options.believes:
            self.tell(
                f"key {name}: {len(missing)} of {sighted} meetings are missing at the recorder,"
                " more than is believed without a person: if they are deleted there, run"
                " embedding-assets sync fathom --believe"
            )
            return
        for row in missing:
            moment = row.created_at.replace(microsecond=0)
            windows = self._walk(moment, moment + 2 * SECOND, with_transcripts=False)
            there = {meeting_id(each) for window in windows for each in window.meetings}
            if row.meeting_id in there:
                self._write(sql.list_meetings, meeting_ids=[row.meeting_id])
                continue
            self._write(sql.gone, meeting_id=row.meeting_id, at=self.now())
            self.report.gone += 1
            self.tell(f"key {name}: meeting {row.meeting_id} is gone at the recorder")

    def _walk(
        self, start: datetime, end: datetime, *, with_transcripts: bool = True
    ) -> Iterator[Window]:
        def ask(after: datetime, before: datetime, cursor: str | None) -> Page:
            return self.api.meetings(
                after, before, cursor, with_transcripts=with_transcripts, deadline=self.deadline
            )

        return walk(ask, start, end)

    def _take(self, window: Window, progress: Callable[..., Any] | None = None) -> None:
        """Stores a window's meetings one by one; then, at once, that they were read."""
        # First, so that no other run withdraws meanwhile what was gone and is there again.
        ids = sorted({meeting_id(each) for each in window.meetings})
        self._write(sql.list_meetings, meeting_ids=ids)
        taken = [(take(self.database, each), created_at(each)) for each in window.meetings]
        for each, _ in taken:
            self._tell_of(each)

        def note(connection: Connection) -> None:
            sql.see_meetings(
                connection,
                key_name=self.report.name,
                **_columns(taken, window.start),
            )
            if progress is not None:
                progress(connection, key_name=self.report.name)

        self.database.retrying(note)

    def _tell_of(self, each: Taken) -> None:
        if each.recording_id is None:
            if each.meeting_id in self.report.unreadable:
                return
            self.report.unreadable.add(each.meeting_id)
        elif each.has_changed:
            self.report.changed.add(each.recording_id)
        for line in each.told:
            self.report.told.append(line)
            self.tell(line)

    def _state(self) -> Any:
        return self._write(sql.begin_key)

    def _write(self, statement: Callable[..., Any], **parameters: Any) -> Any:
        """One statement about this key, in a transaction of its own."""
        return self.database.retrying(
            lambda connection: statement(connection, key_name=self.report.name, **parameters)
        )

    @property
    def _beginning(self) -> datetime:
        since = self.options.since
        return datetime(since.year, since.month, since.day, tzinfo=UTC)


def _is_listing_due(listed_at: datetime | None, now: datetime, hour: int) -> bool:
    night = now.astimezone(UTC).replace(hour=hour, minute=0, second=0, microsecond=0)
    return listed_at is None or listed_at < (night if night <= now else night - timedelta(days=1))


def _columns(
    taken: Sequence[tuple[Taken, datetime | None]], start: datetime
) -> dict[str, list[Any]]:
    """The sightings as arrays; a meeting that comes twice is there once."""
    once = {each.meeting_id: (each, created) for each, created in taken}
    return {
        "meeting_ids": list(once),
        "recording_ids": [each.recording_id for each, _ in once.values()],
        "unreadables": [each.unreadable for each, _ in once.values()],
        "created": [created or start for _, created in once.values()],
    }
