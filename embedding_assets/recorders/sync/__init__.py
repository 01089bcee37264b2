"""Fathom's meetings, read through its API: completely, and again."""
