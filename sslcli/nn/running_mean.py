"""Exponential moving averages that skipped steps do not change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.nn.dist import all_reduce_mean


class RunningMean(nn.Module):
    """`value` (K): exponential moving average of the mean row of the global batch, `start` initially.

    `observe` in `forward`, `update` in `after_step`. Observed sums wait in buffers, so that a skipped step has no effect; between
    steps they are zero.
    """

    value: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, dim: int, start: float = 0.0):
        super().__init__()
        self.register_buffer("value", torch.full((dim,), start))
        self.register_buffer("total", torch.zeros(dim), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def observe(self, rows: Tensor) -> None:
        """Accumulate rows (n, K)."""
        self.total.add_(rows.to(self.total.dtype).sum(dim=0))
        self.count.add_(len(rows))

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move `value` towards the mean of the observed rows of all processes."""
        total, count = all_reduce_mean(self.total), all_reduce_mean(self.count)
        self.value.lerp_(total / count.clamp(min=1), (1 - momentum) * (count > 0).to(self.value.dtype))
        self.total.zero_()
        self.count.zero_()
