"""Step → learning rate, over both phases."""

from __future__ import annotations

import math

from pixzip.training.config import TrainingSettings


def _fall(shape: str, done: float) -> float:
    """From 1 at done = 0 to 0 at done = 1."""
    return (1 + math.cos(math.pi * done)) / 2 if shape == "cosine" else 1 - done


def rate_at(settings: TrainingSettings, step: int) -> float:
    """Learning rate of a step, counted from 0 over both phases."""
    s = settings
    if step >= s.steps:
        fall = _fall(s.decay_shape, (step - s.steps) / max(1, s.quantised_steps))
        return s.quantised_rate * (s.quantised_final + (1 - s.quantised_final) * fall)
    rise = min(1.0, (step + 1) / max(1, s.warmup))
    into = max(0.0, (step - (s.steps - s.decay)) / max(1, s.decay))
    return s.rate * rise * (s.final + (1 - s.final) * _fall(s.decay_shape, min(1.0, into)))
