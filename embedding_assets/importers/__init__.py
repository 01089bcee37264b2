"""Reads what recorders write: one file a format, each turning bytes into recordings."""

from embedding_assets.importers.checks import Notice, Rejection
from embedding_assets.importers.reading import read

__all__ = ["Notice", "Rejection", "read"]
