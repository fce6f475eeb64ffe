"""How many steps were made, for what happens every so many of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """`tick()` in `after_step` counts in a buffer, and so across restarts and without steps that were undone.

    The number on this side is the buffer's as long as nobody else has written to it (a checkpoint, an undone step), so
    that a tick does not wait for the device.
    """

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.known = (-1, 0)  # the version of the buffer, and what it holds

    def now(self) -> int:
        """The number of steps that were made."""
        version, count = self.known
        if version != self.steps._version:
            count = int(self.steps)
            self.known = (self.steps._version, count)
        return count

    def tick(self) -> int:
        """The number of steps, with this one."""
        count = self.now()
        self.steps.add_(1)
        self.known = (self.steps._version, count + 1)
        return count + 1
