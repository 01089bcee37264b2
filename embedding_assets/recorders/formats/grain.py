"""Grain's API: GET /v2/recordings/{id}/transcript in the form `json`, an array of segments.

Form: https://developers.grain.com. The array tells neither id nor title: the file's name is both.
"""

from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.format import Format, holds
from embedding_assets.recorders.formats.source import Source
from embedding_assets.recorders.model import Recording


def _recognises(document: Any) -> bool:
    return holds(document, "participant_id", "speaker", "start", "end", "text")


def _recording(document: Any, source: Source, notes: Notes) -> Recording:
    def segment(position: int, each: dict[str, Any], field: str) -> Segment:
        return checks.segment(
            position,
            notes.tolerate(checks.optional_name, each.get("speaker"), f"{field}.speaker"),
            each.get("text"),
            start=notes.tolerate(checks.milliseconds, each.get("start"), f"{field}.start"),
            end=notes.tolerate(checks.milliseconds, each.get("end"), f"{field}.end"),
            field=field,
        )

    return source.recording("grain", segments=notes.segments(document, "", segment))


FORMAT = Format("Grain's API", _recognises, _recording)
