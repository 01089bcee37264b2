"""Replaces what identifies people in a transcript: written, and as it is said aloud."""
