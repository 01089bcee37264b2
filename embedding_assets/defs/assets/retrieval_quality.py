"""`retrieval_quality`: how well search answers the company's own questions, kept over time."""

import contextlib

import dagster as dg

from embedding_assets.defs.assets.transcript_chunks import transcript_chunks
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.search.evaluation import Scores, evaluate, read_questions
from embedding_assets.search.search import Mode
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings
from embedding_assets.wiring import build_embedder

RETRIEVAL_QUALITY = dg.AssetKey("retrieval_quality")
FLOOR = "above_floor"


@dg.asset(
    key=RETRIEVAL_QUALITY,
    # Depending on all partitions of transcript_chunks would make Dagster read every one of them.
    deps=[
        dg.AssetDep(transcript_chunks, partition_mapping=dg.SpecificPartitionsPartitionMapping([]))
    ],
    check_specs=[
        dg.AssetCheckSpec(
            FLOOR,
            asset=RETRIEVAL_QUALITY,
            description="Whether enough of the questions find an answer among the best five hits"
            " (EVALUATION_FLOOR).",
        )
    ],
    group_name="health",
    kinds={"postgres"},
    description="How well search answers the questions of EVALUATION_QUESTIONS, in each mode."
    " Materialize it before and after a change of the model or of the chunk sizes.",
)
def retrieval_quality() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster compares it
    """Asks every question in each mode; Dagster plots the figures.

    Raises:
        dg.Failure: there are no questions, or the model or the database is away.
    """
    settings = Settings()
    if settings.evaluation_questions is None:
        raise dg.Failure(
            "EVALUATION_QUESTIONS is not set: name a file of questions, see docs/search.md",
            allow_retries=False,
        )
    try:
        questions = read_questions(settings.evaluation_questions)
        with (
            open_database(settings) as database,
            contextlib.closing(build_embedder(settings)) as embedder,
        ):
            scores = evaluate(database, embedder, questions)
            model = embedder.model
    except EmbeddingAssetsError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    metadata: dict[str, dg.MetadataValue] = {
        "questions": dg.MetadataValue.int(len(questions)),
        "model": dg.MetadataValue.text(model),
    }
    for each in scores:
        metadata |= _figures(each)
    found = next(each for each in scores if each.mode is Mode.hybrid).hit_at_5.mean * 100
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name=FLOOR,
                passed=found >= settings.evaluation_floor,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{found:.1f} % of the questions find an answer among the best five"
                f" hits; EVALUATION_FLOOR is {settings.evaluation_floor:g} %",
                metadata={"hit_at_5_percent": found},
            )
        ],
    )


def _figures(scores: Scores) -> dict[str, dg.MetadataValue]:
    """Each figure under the name of its mode, with the ends of its confidence interval."""
    named = {
        "hit_at_1": scores.hit_at_1,
        "hit_at_5": scores.hit_at_5,
        "mrr": scores.mrr,
        "ndcg_at_10": scores.ndcg_at_10,
    }
    figures: dict[str, dg.MetadataValue] = {}
    for name, interval in named.items():
        figures[f"{scores.mode}_{name}"] = dg.MetadataValue.float(interval.mean)
        figures[f"{scores.mode}_{name}_interval"] = dg.MetadataValue.text(
            f"{interval.low:.3f} to {interval.high:.3f}"
        )
    return figures
