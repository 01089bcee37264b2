"""The recorders' tables: somebody else's, or kept equal to what Fathom has."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from embedding_assets.defs.resources import Recorders
from embedding_assets.engine.errors import EmbeddingAssetsError

if TYPE_CHECKING:
    from embedding_assets.recorders.sync.fathom import SyncReport

_GROUP = "recorder"
# The schedule sync_fathom starts a run every 15 minutes.
_FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=1), fail_window=timedelta(hours=24)
)
_KINDS = {"postgres", "table"}
# Always the same: the queue says which recordings changed, and Dagster would take all for stale.
_UNCHANGED = dg.DataVersion("embedding_queue")

fathom_calls = dg.AssetSpec(
    "fathom_calls",
    description="One row a recorded call: what it was, when, and whose.",
    metadata={
        "dagster/table_name": "fathom_calls",
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("recording_id", "text", "the partition key, compared as text"),
                dg.TableColumn("title", "text"),
                dg.TableColumn("recorded_at", "timestamptz", "created_at where it is absent"),
                dg.TableColumn("user_id", "text", "whose call it is; may be absent"),
            ]
        ),
    },
    group_name=_GROUP,
    kinds=_KINDS,
)

fathom_transcripts = dg.AssetSpec(
    "fathom_transcripts",
    deps=[fathom_calls],
    description="What was said: one row a segment, which is one speaker turn.",
    metadata={
        "dagster/table_name": "fathom_transcripts",
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn("recording_id", "text"),
                dg.TableColumn("position", "integer", "the order in which it was said"),
                dg.TableColumn("speaker_name", "text"),
                dg.TableColumn("start_seconds", "double precision", "from the call's start"),
                dg.TableColumn("end_seconds", "double precision"),
                dg.TableColumn("text", "text", "what the recorder heard"),
                dg.TableColumn("edited_text", "text", "a person's correction; it wins"),
                dg.TableColumn("is_deleted", "boolean", "left out of the chunks"),
            ]
        ),
    },
    group_name=_GROUP,
    kinds=_KINDS,
)


def synchronised(specs: Sequence[dg.AssetSpec]) -> dg.AssetsDefinition:
    """The same tables, where materializing them is to read Fathom."""

    @dg.multi_asset(
        name="fathom",
        specs=[spec.replace_attributes(skippable=True, freshness_policy=_FRESH) for spec in specs],
    )
    def fathom(
        context: dg.AssetExecutionContext, recorders: Recorders
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]  # Dagster compares it
        """Reads with every key of FATHOM_API_KEYS what is new, what may have changed, and lists.

        The tables count as materialized once everything new is here. A key that is refused stops
        none of the others; the check recorder_sync tells of it.

        Raises:
            dg.Failure: no key is taken, or the database or a setting does not let anything in.
        """
        try:
            report = recorders.synchronise(context.log.info)
        except EmbeddingAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        if all(key.is_refused for key in report.keys):
            told = "; ".join(f"key {key.name}: {key.problem}" for key in report.keys)
            raise dg.Failure(told, allow_retries=False)
        if report.is_current:
            for spec in specs:
                yield dg.MaterializeResult(
                    asset_key=spec.key, metadata=_metadata(report), data_version=_UNCHANGED
                )

    return fathom


def _metadata(report: "SyncReport") -> dict[str, dg.MetadataValue]:
    changed = set().union(*(key.changed for key in report.keys))
    figures = {
        "added_or_changed": len(changed),
        "unreadable": len(set().union(*(key.unreadable for key in report.keys))),
        "gone_at_the_recorder": sum(key.gone for key in report.keys),
        "withdrawn": len(report.withdrawn),
        "refused_keys": sum(key.is_refused for key in report.keys),
    }
    return {name: dg.MetadataValue.int(number) for name, number in figures.items()}
