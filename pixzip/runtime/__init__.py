"""Frozen networks, executed in exact integers: both traversals, on the CPU and on devices."""
