"""The named statements of `search/sql`, as functions of a connection and named parameters."""

from pathlib import Path

from embedding_assets.engine.database import Statements

sql = Statements(Path(__file__).parent / "sql")
