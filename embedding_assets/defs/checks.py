"""The health alerts: seven checks on `transcript_chunks`, one look at the whole tables."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg

from embedding_assets.defs.runs import TRANSCRIPT_CHUNKS
from embedding_assets.engine.errors import EmbeddingAssetsError
from embedding_assets.health.integrity import inspect
from embedding_assets.health.judging import CHECKS, Figure, Finding, Severity
from embedding_assets.health.system import system_health
from embedding_assets.server.connections import open_database
from embedding_assets.settings import Settings

DESCRIPTIONS = {
    "configuration": "Key, model, dimensions, migrations and pgvector: whether anything can work.",
    "dead_letters": "Recordings that were given up, and those of them that wait for a person.",
    "pending_backlog": "How many recordings wait to be embedded.",
    "recent_activity": "Whether anything was published lately, while work is due.",
    "completion_rate": "How many of the recordings that were tried are published.",
    "stale_claims": "Recordings in the hands of runs that died.",
    "chunk_integrity": "Whether chunks and vectors are as they were published, some recordings at"
    " each look, round after round.",
}


@dg.op(
    name="health",
    out={name: dg.Out(dg.Nothing, is_required=False) for name in CHECKS},
    tags={"dagster/priority": "-1"},  # after the recordings, in a run that embeds some
    description="Counts once and judges; what is red turns no run red.",
)
def look_at_health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Any of them can be executed alone."""
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


# `multi_asset_check` would make the checks wait for the asset's output. Its runs have none, events
# instead, so every run that a person launches would end with all checks "skipped", a red one too.
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
    """Evaluates the checks outside of their job, without a new look at chunks.

    Dagster shows a check as not evaluated once its asset was materialized after it, which on a busy
    system is always; so a worker ends with this.
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
    """Takes integrity's next look; gives the reason if that failed."""
    try:
        with open_database(settings) as database:
            inspect(database)
    except EmbeddingAssetsError as error:
        return str(error)
    return None


def _not_looked_at(name: str, reason: str) -> Finding:
    """Not known is not healthy."""
    return Finding(name, Severity.WARNING, f"not looked at: {reason}")


def _without_new_look(finding: Finding, reason: str) -> Finding:
    """What earlier looks found still holds; that there is no newer one is worth a warning."""
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
    # A line each: Dagster's table runs the lines of one text together.
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
    """Typed, because Dagster plots numbers only."""
    if isinstance(figure, int):
        return dg.MetadataValue.int(figure)
    if isinstance(figure, float):
        return dg.MetadataValue.float(figure)
    return dg.MetadataValue.text(str(figure))
