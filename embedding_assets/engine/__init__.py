"""The life of a recording, from transcript to published chunks. Knows nothing of Dagster."""
