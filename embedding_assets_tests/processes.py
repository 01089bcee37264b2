"""Processes of tests that are killed, forked from one that has imported the engine."""

import multiprocessing

# Starting a hundred takes seconds. The list of modules is set once for the whole test session.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "embedding_assets_tests.system.worker",
        "embedding_assets_tests.faults.workers",
        "embedding_assets.engine.batches",
        "openai",
    ]
)
