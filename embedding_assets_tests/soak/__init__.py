"""The soak: a whole installation at work for an hour, killed once a minute, and measured.

`make soak`, or `python -m embedding_assets_tests.soak --minutes 5`. Calls come, are edited, deleted
and come back; people search; Dagster's daemon embeds, builds the index, sweeps, checks and alerts;
and once a minute a process of it is killed. It passes if nothing that should stay flat grew,
nobody ever saw a part of a recording, and in the end all is as if nobody had been killed.
"""
