"""Losses, one a step → whether training has gone wrong: a loss that is not finite, or one that climbs."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Steps over which the quick and the slow level of the loss are smoothed.
QUICK, SLOW = 10, 200
#: Spikes are looked for after as many steps.
SETTLED = 50


@dataclass
class Watch:
    """Two smoothed levels of the loss; its fields are part of a checkpoint."""

    quick: float = 0.0
    slow: float = 0.0
    seen: int = 0

    def trouble(self, loss: float, spike: float) -> str | None:
        """What is wrong with a step's loss, or None; a good one is taken into the levels.

        A spike is a quick level of ``spike`` times the slow one (0: never): several bad batches in a row, not one.
        """
        if not math.isfinite(loss):
            return f"loss is {loss}"
        first = self.seen == 0
        quick = loss if first else self.quick + (loss - self.quick) / QUICK
        if spike and self.seen >= SETTLED and quick > spike * self.slow:
            return f"loss climbed to {quick:.3f} from {self.slow:.3f} bits/dim"
        self.slow = loss if first else self.slow + (loss - self.slow) / min(SLOW, self.seen + 1)
        self.quick = quick
        self.seen += 1
        return None

    def calm(self, spike: float) -> bool:
        """Whether the loss is low enough for a checkpoint to go back to."""
        return not spike or self.seen < SETTLED or self.quick <= (1 + spike) / 2 * self.slow
