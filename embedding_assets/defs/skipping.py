"""A tick that meets a fault of the world is skipped, and says why in one line."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import dagster as dg

from embedding_assets.engine.errors import ConfigurationError, EmbeddingAssetsError

P = ParamSpec("P")
R = TypeVar("R")


def skipped_on_faults(tick: Callable[P, R]) -> Callable[P, R | dg.SkipReason]:
    """Lets a sensor's or schedule's function skip its tick where it would end in a traceback.

    The next tick looks again. That the database is away is health's to say, and
    `alert_on_health_change`'s. Of sensors of a run's status Dagster passes over that run, as it
    does after an error; what it left undone is the queue's, and due when its leases end.
    """

    @functools.wraps(tick)
    def skipping(*args: P.args, **kwargs: P.kwargs) -> R | dg.SkipReason:
        try:
            return tick(*args, **kwargs)
        except ConfigurationError:
            raise  # red until a person mends it
        except EmbeddingAssetsError as error:
            return dg.SkipReason(f"not looked: {error}")

    return skipping
