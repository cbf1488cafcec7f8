"""Pixels ↔ coding errors ↔ rows of frequencies ↔ words of the entropy coder: exact in every decoder."""
