"""Trained networks ↔ the integers of their frozen form."""
