"""Recordings to try the project with: a dozen written ones, and a generator of any number."""

from importlib.resources import files
from pathlib import Path


def shipped() -> Path:
    """The JSON-lines file of the dozen recordings that come with the package."""
    return Path(str(files(__package__) / "recordings.jsonl"))


def questions() -> Path:
    """The file of questions about the shipped recordings, with where their answers are."""
    return Path(str(files(__name__) / "questions.jsonl"))
