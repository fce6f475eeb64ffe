"""Time steps of series (B, C, T): where a series ends, and values at other positions in time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def valid_length(x: Tensor) -> Tensor:
    """(B, C, T) -> (B,) int64: number of steps up to the last one with a value in any channel."""
    here = ~x.isnan().all(1)  # (B, T)
    steps = torch.arange(1, x.shape[2] + 1, device=x.device)
    return (here * steps).amax(1)


def gather_steps(x: Tensor, at: Tensor) -> Tensor:
    """Gather time steps: (B, C, T), indices (B, S) int64 -> (B, C, S)."""
    return x.gather(2, at[:, None, :].expand(-1, x.shape[1], -1))


def interpolate_steps(x: Tensor, at: Tensor, last: Tensor) -> Tensor:
    """Values between steps by linear interpolation: (B, C, T), positions (B, S) float64 of at most `last` (B, 1) -> (B, C, S)."""
    low = at.floor()
    weight = (at - low).to(torch.float32)[:, None]
    left, right = gather_steps(x, low.long()), gather_steps(x, (low + 1).minimum(last).long())
    return torch.where(weight == 0, left, left * (1 - weight) + right * weight)


def smooth_curves(knots: Tensor, steps: int) -> Tensor:
    """(..., K) values at K points at equal distances -> (..., steps), interpolated by half a cosine between neighbors."""
    at = torch.arange(steps, dtype=torch.float64, device=knots.device) * ((knots.shape[-1] - 1) / max(1, steps - 1))
    low = at.floor().clamp(max=knots.shape[-1] - 2)
    weight = ((1 - ((at - low) * math.pi).cos()) / 2).to(knots.dtype)
    left, right = knots[..., low.long()], knots[..., low.long() + 1]
    return left * (1 - weight) + right * weight
