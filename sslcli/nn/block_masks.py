"""Blocks of a picture, spans of a series, as masks."""

from __future__ import annotations

import torch
from torch import Tensor


def block(places: Tensor, size: tuple[int, ...], share: float) -> Tensor:
    """(B, *size) bool: true in one block a sample, of `share` of each side (at least 1, and at least 1 left out of a side that has
    two), its corner where `places` (B, axes) in [0, 1) says."""
    inside = torch.ones(len(places), *size, dtype=torch.bool, device=places.device)
    for axis, side in enumerate(size):
        length = min(max(1, round(side * share)), max(1, side - 1))
        first = (places[:, axis] * (side - length + 1)).long()
        at = torch.arange(side, device=places.device)
        within = (at >= first[:, None]) & (at < first[:, None] + length)  # (B, side)
        inside &= within.view(len(places), *(side if a == axis else 1 for a in range(len(size))))
    return inside
