"""Microsoft Graph's metadata of a Teams transcript: WebVTT whose cues are JSON objects.

Form: https://learn.microsoft.com/graph/api/calltranscript-get, "metadataContent".
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from embedding_assets.engine.model import Segment
from embedding_assets.recorders import checks
from embedding_assets.recorders.checks import Notes
from embedding_assets.recorders.formats.cues import Cue
from embedding_assets.recorders.model import Recording


def recognises(found: Sequence[Cue]) -> bool:
    """Whether the first cue is an object with a spoken text."""
    return bool(found) and "spokenText" in (_object(found[0]) or {})


def recording(found: Sequence[Cue], made: Recording, notes: Notes) -> Recording:
    """Each cue's speaker and words; the call began at the first cue's date, less its time."""
    segments: list[Segment] = []
    recorded_at, language = None, None
    for cue in found:
        try:
            each = checks.mapping(_object(cue), "cue")
            started = checks.moment(each.get("startDateTime"), "cue.startDateTime")
            if recorded_at is None and started is not None and cue.start is not None:
                recorded_at = started - timedelta(seconds=cue.start)
            language = language or checks.optional_name(each.get("spokenLanguage"), "cue.language")
            segment = checks.segment(
                len(segments),
                checks.optional_name(each.get("speakerName"), "cue.speakerName"),
                checks.required(each, "spokenText", "cue.spokenText"),
                start=checks.seconds(cue.start, "cue.start"),
                end=checks.seconds(cue.end, "cue.end"),
                field="cue",
            )
        except checks.RefusedError as error:
            notes.add(error.field, f"{error.reason}; this cue was left out", cue.line)
        else:
            notes.at(segment.position, cue.line)
            segments.append(segment)
    return replace(made, segments=segments, recorded_at=recorded_at, language=language)


def _object(cue: Cue) -> dict[str, Any] | None:
    try:
        value = json.loads("\n".join(cue.lines))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
