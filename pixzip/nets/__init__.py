"""Trainable networks: the paper's, and the trunk with colour heads that the default model is."""
