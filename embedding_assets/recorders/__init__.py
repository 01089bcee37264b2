"""How calls come in: from files of any recorder, from Fathom by itself, and by one call."""

from embedding_assets.recorders.checks import Notice, Rejection
from embedding_assets.recorders.reading import read

__all__ = ["Notice", "Rejection", "read"]
