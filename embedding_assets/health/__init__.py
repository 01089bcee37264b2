"""How well it goes: what is counted, how it is judged, and who is told."""
