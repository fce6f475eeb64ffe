"""What DINO does to the words of a teacher before a student hears them: a centre is taken off, a temperature warms up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.nn.precision import full_precision


class LinearWarmup(nn.Module):
    """`value`: a temperature that rises along a line from `start` to `end` in the first `share` of the run."""

    value: Tensor

    def __init__(self, start: float, end: float, share: float):
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"warmup={share}: it is a share of the run, from 0 to 1")
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
