"""The paper's networks, executed."""
