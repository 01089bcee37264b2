"""The job that embeds by the provider's batch API: it plans, sends and collects batches."""

import dagster as dg
from pydantic import Field

from embedding_assets.defs.resources import EmbeddingEngine
from embedding_assets.defs.runs import ERROR_KIND_TAG, STOPPED_TAG, failure
from embedding_assets.engine.batch_work import is_worth_a_batch
from embedding_assets.engine.errors import (
    BudgetSpentError,
    ConfigurationError,
    EmbeddingAssetsError,
)
from embedding_assets.settings import Settings


class BatchConfig(dg.Config):
    """What to put into a batch."""

    submit: bool = Field(
        default=False,
        description="Put everything that is due into batches; else only if it comes to"
        " BATCH_FROM_TOKENS.",
    )


@dg.op(description="Sends what is due in batches, and stores the answers of those that ended.")
def advance_batches(
    context: dg.OpExecutionContext, config: BatchConfig, engine: EmbeddingEngine
) -> None:
    """Takes the next step of every batch.

    Raises:
        dg.Failure: the server has no batch API or refuses the key, or the database is away.
    """
    from_tokens = Settings().batch_from_tokens
    try:
        with (
            engine.beating(context.run.run_id, context.instance),
            engine.database() as database,
            engine.batch_lane(database) as lane,
        ):
            for step in lane.advance():
                context.log.info(step)
            submits = config.submit or database.retrying(
                lambda c: is_worth_a_batch(c, from_tokens), snapshot=True
            )
            try:
                while submits and (planned := lane.plan()):
                    context.log.info(planned)
            except BudgetSpentError as error:
                context.instance.add_run_tags(context.run.run_id, {STOPPED_TAG: str(error)})
                context.log.warning(str(error))
            for step in lane.advance():
                context.log.info(step)
    except ConfigurationError as error:
        context.instance.add_run_tags(context.run.run_id, {ERROR_KIND_TAG: error.kind.value})
        raise failure(f"configuration: {error}", kind=error.kind) from None
    except EmbeddingAssetsError as error:
        raise failure(str(error), kind=error.kind) from None


@dg.job(
    description="Embeds by the provider's batch API at half price; workers publish what it brings."
)
def embed_in_batches() -> None:
    """The graph of one op."""
    advance_batches()
