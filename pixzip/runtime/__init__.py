"""Frozen networks, executed in exact integers: the trunk, the paper's networks (stack), and GPUs (device)."""
