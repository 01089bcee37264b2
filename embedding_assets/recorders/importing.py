"""Imports the recordings that can be read, and reports what cannot."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from embedding_assets.engine.database import Database
from embedding_assets.engine.errors import InvalidInputError
from embedding_assets.recorders import Notice, Rejection, read
from embedding_assets.recorders.upsert import Upserted, upsert


@dataclass(slots=True)
class ImportReport:
    """The outcome of an import."""

    imported: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def import_recordings(
    database: Database,
    paths: Iterable[Path | Literal["-"]],
    progress: Callable[[int], None] = lambda _: None,
) -> ImportReport:
    """Stores every recording that can be read, one transaction each; `progress` gets the count."""
    report = ImportReport()
    for item in read(paths):
        if isinstance(item, Notice):
            report.notices.append(item)
        elif isinstance(item, Rejection):
            report.rejected.append(item)
        else:
            try:
                upserted = upsert(database, item)
            except InvalidInputError as error:
                report.rejected.append(
                    Rejection(f"recording {item.recording_id}", None, str(error), item.recording_id)
                )
                continue
            report.imported += upserted is Upserted.IMPORTED
            report.unchanged += upserted is Upserted.UNCHANGED
            progress(report.imported + report.unchanged)
    return report
