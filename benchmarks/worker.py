"""Embeds what is due with the engine alone, without Dagster; what others measure as a process."""

import os
from datetime import timedelta

from embedding_assets.engine.in_flight import Lane
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session


def main() -> None:
    """Ends when nothing is due."""
    run_id = f"benchmark {os.getpid()}"  # claims are a run's own
    with open_session(Settings(), run_id, lane=Lane.standard, insert_batch=None) as session:
        for _ in session.due(timedelta(hours=1)):
            pass


if __name__ == "__main__":
    main()
