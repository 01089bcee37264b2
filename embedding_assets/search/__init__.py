"""How what was said is found."""
