"""The recorders' tables, which this project reads and does not make."""

import dagster as dg

_GROUP = "recorder"
_KINDS = {"postgres", "table"}

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
