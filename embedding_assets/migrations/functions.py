"""Functions as an earlier revision made them, for revisions that replace one and put it back."""

import re
from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"


def as_before(file: str, name: str) -> str:
    """The statement that puts a function of PL/pgSQL back as this file of `versions` creates it."""
    statements = (VERSIONS / file).read_text(encoding="utf-8")
    found = re.search(rf"CREATE (?:OR REPLACE )?FUNCTION ({name}\(.*?END \$\$;)", statements, re.S)
    if found is None:
        raise LookupError(f"{file} has no function {name}")
    return f"CREATE OR REPLACE FUNCTION {found[1]}"
