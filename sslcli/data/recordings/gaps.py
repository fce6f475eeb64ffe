"""Series without missing values, for models that cannot take them: gaps are interpolated, padding is a length."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_gaps(x: Tensor) -> tuple[Tensor, Tensor]:
    """Series (n, C, T) whose missing values are interpolated linearly in time, and the number of steps (n,) of each.

    A series ends with its last step that has a value in any channel. Before the first and after the last value of a channel, this
    value is repeated; a channel without values is 0, the mean of normalized data."""
    known = ~x.isnan()
    steps = torch.arange(x.shape[2])
    length = (known.any(dim=1) * (steps + 1)).amax(dim=1)
    if bool(known.all()):
        return x, length
    before = torch.where(known, steps, -1).cummax(dim=2).values
    after = torch.where(known, steps, x.shape[2]).flip(2).cummin(dim=2).values.flip(2)
    left, right = before.clamp(min=0), after.clamp(max=x.shape[2] - 1)
    left = torch.where(before < 0, right, left)
    right = torch.where(after == x.shape[2], left, right)
    weight = (steps - left) / (right - left).clamp(min=1)
    start, end = x.gather(2, left), x.gather(2, right)
    return (start + weight.clamp(0, 1) * (end - start)).nan_to_num(0.0), length
