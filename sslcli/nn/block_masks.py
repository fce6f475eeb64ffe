"""Masks of one block per sample: a rectangle of an image, a time span of a series."""

from __future__ import annotations

import torch
from torch import Tensor


def block_mask(position: Tensor, size: tuple[int, ...], fraction: float) -> Tensor:
    """(B, *size) bool, true inside one block per sample, with `fraction` of the length of each axis.

    At least 1, and in an axis of two or more at most all but 1. `position` (B, axes) in [0, 1) determines its corner."""
    inside = torch.ones(len(position), *size, dtype=torch.bool, device=position.device)
    for axis, side in enumerate(size):
        length = min(max(1, round(side * fraction)), max(1, side - 1))
        first = (position[:, axis] * (side - length + 1)).long()
        at = torch.arange(side, device=position.device)
        within = (at >= first[:, None]) & (at < first[:, None] + length)  # (B, side)
        inside &= within.view(len(position), *(side if a == axis else 1 for a in range(len(size))))
    return inside
