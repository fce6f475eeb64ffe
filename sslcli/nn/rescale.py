"""From one normalization of values to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Rescale(nn.Module):
    """Values normalized by one mean and standard deviation per channel -> by another. x (B, C, *size)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_mean: Sequence[float], to_std: Sequence[float]):
        super().__init__()
        a, b, c, d = (torch.tensor(v) for v in (mean, std, to_mean, to_std))
        self.register_buffer("scale", b / d, persistent=False)
        self.register_buffer("shift", (a - c) / d, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        axes = (-1, *([1] * (x.ndim - 2)))
        return x * self.scale.view(axes) + self.shift.view(axes)
