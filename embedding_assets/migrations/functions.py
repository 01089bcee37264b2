"""Functions as an earlier revision made them, for revisions that replace one and put it back."""

from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"


def as_before(file: str, name: str) -> str:
    """The statement that puts a function of PL/pgSQL back as this file of `versions` creates it."""
    statements = (VERSIONS / file).read_text(encoding="utf-8")
    start = statements.index(f"CREATE FUNCTION {name}(")
    end = statements.index("END $$;", start) + len("END $$;")
    return statements[start:end].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
