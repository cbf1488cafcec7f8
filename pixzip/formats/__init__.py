"""Image files ↔ exact samples, with all metadata."""
