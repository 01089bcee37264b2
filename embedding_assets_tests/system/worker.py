"""An engine process for tests: embeds what is due, and prints a JSON line for each outcome.

python -m embedding_assets_tests.system.worker RUN_ID
"""

import json
import sys

from embedding_assets.engine.embedding import Lane
from embedding_assets.settings import Settings
from embedding_assets.wiring import open_session


def main(run_id: str) -> None:
    """Ends when nothing is due."""
    with open_session(Settings(), run_id, lane=Lane.standard, insert_batch=None) as session:
        for outcome in session.due():
            line = {
                "recording_id": outcome.recording_id,
                "result": outcome.result,
                "error": outcome.error,
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
