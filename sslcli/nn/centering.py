"""Centering and sharpening of teacher outputs (DINO), and linear warmup of the teacher temperature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.nn.precision import full_precision


class LinearWarmup(nn.Module):
    """`value`: linear from `start` to `end` over the first fraction `share` of the run, then constant."""

    value: Tensor

    def __init__(self, start: float, end: float, share: float):
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"warmup must be a fraction of the run from 0 to 1, got {share}")
        self.start, self.end, self.share = start, end, share
        self.register_buffer("value", torch.tensor(self.at(0.0)))

    def at(self, progress: float) -> float:
        done = min(progress / self.share, 1.0) if self.share > 0 else 1.0
        return self.start + (self.end - self.start) * done

    def after_step(self, progress: float) -> None:
        self.value.fill_(self.at(progress))


@full_precision
def centered_softmax(teacher: Tensor, center: Tensor, temperature: float | Tensor) -> Tensor:
    """DINO, Sec. 3.1: softmax((g - c) / t) over the last axis. Centering prevents one output from dominating, sharpening by a low
    temperature prevents the uniform distribution."""
    return ((teacher - center) / temperature).softmax(dim=-1)
