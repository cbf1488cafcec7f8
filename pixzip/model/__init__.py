"""Model files ↔ the integers of frozen networks, checked."""
