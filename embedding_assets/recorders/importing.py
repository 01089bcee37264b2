"""Imports the recordings that can be read, and reports what cannot."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.recorders.checks import Notice, Rejection
from embedding_assets.recorders.model import Recording
from embedding_assets.recorders.reading import Item, read, read_document
from embedding_assets.recorders.upsert import Upserted, upsert


@dataclass(slots=True)
class ImportReport:
    """The outcome of an import."""

    imported: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    recording_ids: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if key != "recording_ids"}


def import_recordings(
    database: Database,
    paths: Iterable[Path | Literal["-"]],
    progress: Callable[[int], None] = lambda _: None,
    *,
    replace_more: bool = False,
    importer: str | None = None,
) -> ImportReport:
    """Stores every recording that can be read, one transaction each; `progress` gets the count.

    With `replace_more`, a transcript also replaces one that tells more. The importer is an address
    that may see the calls, whoever else may.
    """
    report = ImportReport()
    for item in read(paths):
        known = replace(item, imported_by=importer) if isinstance(item, Recording) else item
        _take(database, known, report, replace_more=replace_more)
        progress(report.imported + report.unchanged)
    return report


def import_document(
    database: Database, document: Any, place: str, *, importer: str | None = None
) -> ImportReport:
    """Stores the calls of one JSON document of any known format, such as a page of an API.

    The importer, an address or a user's id, may see the calls, and may touch none that are here
    already and that they may not see.
    """
    report = ImportReport()
    for item in read_document(document, place):
        known = replace(item, imported_by=importer) if isinstance(item, Recording) else item
        _take(database, known, report, only_of=importer)
    return report


def import_meeting(
    database: Database,
    source: str,
    external_id: str,
    meeting: dict[str, Any],
    *,
    importer: str | None = None,
) -> ImportReport:
    """Stores a call of a recorder that has no format here. To call it again changes nothing.

    Args:
        database: the application's.
        source: the recorder's name, such as `dialpad`.
        external_id: the recorder's id of the call; with the source it makes the recording's id.
        meeting: as an object of JSON lines, without `recording_id` and `source_platform`.
        importer: a reader who may see the call, whoever else may. If it is here already, and they
            may not see it, it is rejected.

    Returns:
        A report with one recording, or the reason for which there is none.
    """
    document = {
        **meeting, "recording_id": f"{source}-{external_id}", "source_platform": source
    }  # fmt: skip
    return import_document(database, document, f"{source} {external_id}", importer=importer)


def _take(
    database: Database,
    item: Item,
    report: ImportReport,
    *,
    replace_more: bool = False,
    only_of: str | None = None,
) -> None:
    if isinstance(item, Notice):
        report.notices.append(item)
    elif isinstance(item, Rejection):
        report.rejected.append(item)
    else:
        _store(database, item, report, replace_more=replace_more, only_of=only_of)


def _store(
    database: Database,
    item: Recording,
    report: ImportReport,
    *,
    replace_more: bool,
    only_of: str | None,
) -> None:
    place = item.file or f"recording {item.recording_id}"
    try:
        outcome = upsert(database, item, replace_more=replace_more, only_of=only_of)
    except InvalidInputError as error:
        report.rejected.append(Rejection(place, None, str(error), item.recording_id))
        return
    report.imported += outcome.upserted is Upserted.IMPORTED
    report.unchanged += outcome.upserted is Upserted.UNCHANGED
    report.recording_ids.append(outcome.recording_id)
    report.notices += [Notice(place, *remark, outcome.recording_id) for remark in outcome.remarks]
