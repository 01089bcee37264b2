"""The file that a call without an id of its own comes from, which gives it one."""

import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from embedding_assets.recorders import checks
from embedding_assets.recorders.model import Recording

_ENDINGS = (".gz", ".vtt", ".srt", ".sbv", ".txt", ".json", ".transcript", ".captions", ".cc")
_NO_KEY = re.compile(r"[\x00-\x1f\x7f,]+|\.{3,}")
_LONGEST = 200  # characters of an id, which may get an addition


@dataclass(frozen=True, slots=True)
class Source:
    """A file by its name; None for standard input."""

    path: str | None  # absolute

    def recording(self, platform: str, **known: Any) -> Recording:
        """A recording with nothing said yet, whose id and title are the file's name.

        Raises:
            RefusedError: standard input has no name.
        """
        if self.path is None:
            raise checks.RefusedError(None, "has no id of its own: save it to a named file")
        key = " ".join(_NO_KEY.sub("_", self._stem()).split())[:_LONGEST].strip()
        made = Recording(
            recording_id=checks.recording_id(key or "unnamed", "file name"),
            title=self.title or "unnamed",
            segments=(),
            source_platform=platform,
            file=self.path,
        )
        return replace(made, **known)

    @property
    def title(self) -> str:
        """The name without its ending, as a title; nothing for standard input."""
        return " ".join(self._stem().replace("_", " ").split())

    def _stem(self) -> str:
        stem = PurePath(self.path or "").name
        while stem.lower().endswith(_ENDINGS):
            stem = stem.rpartition(".")[0]
        return "".join(c if c.isprintable() else "_" for c in stem)
