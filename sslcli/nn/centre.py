"""What DINO does to the words of a teacher before a student hears them: a moving centre, a temperature that warms up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.nn.dist import mean
from sslcli.nn.precision import full_precision


class Centre(nn.Module):
    """`value` (K): DINO's centre, eq. (4), over the rows of the global batch.

    `see` in `forward`, `update` in `after_step`. What was seen waits in buffers, so that a step that is skipped leaves no
    trace; between steps they are zero.
    """

    value: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("value", torch.zeros(dim))
        self.register_buffer("total", torch.zeros(dim), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def see(self, rows: Tensor) -> None:
        """(n, K)"""
        self.total.add_(rows.to(self.total.dtype).sum(dim=0))
        self.count.add_(len(rows))

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        total, count = mean(self.total), mean(self.count)
        self.value.lerp_(total / count.clamp(min=1), (1 - momentum) * (count > 0).to(self.value.dtype))
        self.total.zero_()
        self.count.zero_()


class Warming(nn.Module):
    """`value`: a temperature that rises along a line from `start` to `end` in the first `share` of the run."""

    value: Tensor

    def __init__(self, start: float, end: float, share: float):
        super().__init__()
        self.start, self.end, self.share = start, end, share
        self.register_buffer("value", torch.tensor(self.at(0.0)))

    def at(self, progress: float) -> float:
        done = min(progress / self.share, 1.0) if self.share > 0 else 1.0
        return self.start + (self.end - self.start) * done

    def after_step(self, progress: float) -> None:
        self.value.fill_(self.at(progress))


@full_precision
def sharpened(teacher: Tensor, centre: Tensor, temperature: float | Tensor) -> Tensor:
    """DINO, Sec. 3.1: softmax((g - c) / t) over the last axis. The centre keeps one output from winning everywhere, the low
    temperature keeps all from being equal."""
    return ((teacher - centre) / temperature).softmax(dim=-1)
