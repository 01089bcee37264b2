"""Searches by vectors read whole vectors last, so that no sort spills to disk."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"

FOLDER = Path(__file__).parent
FUNCTIONS_BEFORE = FOLDER / "0005_search_functions.sql"
FUNCTION = "CREATE FUNCTION nearest_vectors_statement("


def upgrade() -> None:
    """Replaces the function that writes the statement."""
    op.execute((FOLDER / "0006_nearest_vectors.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Puts the function of the revision before back."""
    before = FUNCTIONS_BEFORE.read_text(encoding="utf-8")
    start = before.index(FUNCTION)
    end = before.index("END $$;", start) + len("END $$;")
    op.execute(before[start:end].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
