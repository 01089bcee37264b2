"""Reads what recorders write: one file a format, each turning bytes into recordings."""

from embedding_assets.recorders.checks import Notice, Rejection
from embedding_assets.recorders.files import read

__all__ = ["Notice", "Rejection", "read"]
