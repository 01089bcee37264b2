"""Measurements; each module is a command. Tests measure nothing, and these test nothing."""
