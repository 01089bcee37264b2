"""The asset checks on `transcript_chunks`: each shows one finding of the system's health."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg

from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.health.findings import Figure, Finding, Severity
from embedding_assets.health.integrity import inspect
from embedding_assets.health.judging import CHECKS
from embedding_assets.health.system import system_health
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings

DESCRIPTIONS = {
    "configuration": "Key, model, dimensions, migrations and pgvector: whether anything can work.",
    "dead_letters": "Recordings that were given up, and those of them that wait for a person.",
    "pending_backlog": "How many recordings wait to be embedded.",
    "recent_activity": "Whether anything was published lately, while work is due.",
    "completion_rate": "How many of the recordings that were tried are published.",
    "stale_claims": "Recordings claimed by runs that died.",
    "chunk_integrity": "Whether chunks and vectors are as they were published, some recordings at"
    " each look, round after round.",
    "chunk_sizes": "Whether what is published is cut by the present CHUNK_* settings.",
    "budget": "Whether work waits because the budget of the day is spent.",
    "search_words": "Whether words are searched in SEARCH_LANGUAGE, and counted up to date.",
    "retention": "Whether calls older than RETENTION_DAYS were forgotten.",
    "disk": "Whether there is room, as far as a client of the database can tell.",
    "orchestration": "Whether Dagster's storage answers and its daemon ticks.",
    "recorder_sync": "Whether the calls here are all that the recorder has, by each of its keys.",
}


@dg.op(
    name="health",
    out={name: dg.Out(dg.Nothing, is_required=False) for name in CHECKS},
    tags={"dagster/priority": "-1"},  # in a run that also embeds, the checks come last
    description="Evaluates the checks; a red check does not make the run fail.",
)
def look_at_health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Evaluates the selected checks from one reading of the database."""
    settings = Settings()
    selected = {key.name for key in context.selected_asset_check_keys}
    uninspected = _inspect(settings) if "chunk_integrity" in selected else None
    health = system_health(settings)
    findings = {finding.name: finding for finding in health.findings}
    if uninspected is not None and "chunk_integrity" in findings:
        findings["chunk_integrity"] = _without_new_look(findings["chunk_integrity"], uninspected)
    for name in CHECKS:
        if name in selected:
            yield result(findings.get(name) or _not_looked_at(name, health.findings[0].message))


# Not `multi_asset_check`: that waits for an output of the asset, and `transcript_chunks` logs
# events instead of outputs. A run launched in the UI would then skip every check, also a red one.
health_checks = dg.AssetChecksDefinition.create(
    node_def=look_at_health,
    keys_by_input_name={},
    check_specs_by_output_name={
        name: dg.AssetCheckSpec(name, asset=TRANSCRIPT_CHUNKS, description=description)
        for name, description in DESCRIPTIONS.items()
    },
    can_subset=True,
)


def report_health(instance: dg.DagsterInstance) -> None:
    """Evaluates the checks outside of their job, without inspecting more chunks.

    Dagster shows a check as not evaluated once its asset is materialized after it. Workers
    materialize all the time, so each evaluates the checks again at its end.
    """
    health = system_health(Settings())
    for finding in health.findings:
        told = result(finding)
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=TRANSCRIPT_CHUNKS,
                check_name=finding.name,
                passed=told.passed,
                metadata=told.metadata,
                severity=told.severity,
                description=told.description,
            )
        )


def _inspect(settings: Settings) -> str | None:
    """Inspects the next recordings; returns why that failed, or None."""
    try:
        with open_database(settings) as database:
            inspect(database)
    except EmbeddingAssetsError as error:
        return str(error)
    return None


def _not_looked_at(name: str, reason: str) -> Finding:
    """The finding of a check that could not be evaluated: a warning, because nothing is known."""
    return Finding(name, Severity.WARNING, f"not looked at: {reason}")


def _without_new_look(finding: Finding, reason: str) -> Finding:
    """The finding of the earlier inspections, at least a warning because the last one failed."""
    return replace(
        finding,
        severity=max(finding.severity, Severity.WARNING),
        message=f"not looked at: {reason}; before that, {finding.message}",
    )


def result(finding: Finding) -> dg.AssetCheckResult:
    """The finding as Dagster shows it: its numbers plotted, what to do beside what is wrong."""
    metadata = {
        name: _metadata(figure) for name, figure in finding.figures.items() if figure is not None
    }
    # One entry an item: Dagster's table would show the lines of one text as a single line.
    for number, item in enumerate(finding.items, 1):
        metadata[f"worst_{number}"] = dg.MetadataValue.text(item)
    description = finding.message
    if finding.action is not None:
        description += f"\n\nWhat to do: {finding.action}"
    is_critical = finding.severity is Severity.CRITICAL
    return dg.AssetCheckResult(
        passed=finding.severity is Severity.HEALTHY,
        asset_key=TRANSCRIPT_CHUNKS,
        check_name=finding.name,
        severity=dg.AssetCheckSeverity.ERROR if is_critical else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def _metadata(figure: Figure) -> dg.MetadataValue:
    """The value as Dagster's type for it: only numbers are plotted."""
    if isinstance(figure, int):
        return dg.MetadataValue.int(figure)
    if isinstance(figure, float):
        return dg.MetadataValue.float(figure)
    return dg.MetadataValue.text(str(figure))
