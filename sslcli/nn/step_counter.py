"""Number of optimizer steps, for events at regular intervals."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """`tick()` in `after_step` counts in a buffer, which checkpoints save and reverted steps restore.

    A copy on the host is valid as long as nothing else writes to the buffer (a checkpoint, a reverted step), so that `tick` does
    not synchronize with the device.
    """

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.cached = (-1, 0)  # version of the buffer, and its value

    def now(self) -> int:
        """The number of steps so far."""
        version, count = self.cached
        if version != self.steps._version:
            count = int(self.steps)
            self.cached = (self.steps._version, count)
        return count

    def tick(self) -> int:
        """Count one step. Returns the number of steps including it."""
        count = self.now()
        self.steps.add_(1)
        self.cached = (self.steps._version, count + 1)
        return count + 1
