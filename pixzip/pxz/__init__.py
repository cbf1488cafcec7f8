""".pxz files ↔ their parts: header, chunks, checksums, names; and what is left of damaged ones."""
