"""The assets, one file each; thin: Dagster in, engine call, metadata out."""
