"""Random masks over tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_count(tokens: int, ratio: float) -> int:
    """Number of visible tokens when a fraction `ratio` is masked: rounded down, at least 1, and at most all but 1."""
    return min(max(int(tokens * (1 - ratio)), 1), max(tokens - 1, 1))


def random_keep(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, N) scores -> the `count` smallest of each row: their indices (B, count) int64, and the mask (B, N) bool of the others.

    With uniform scores every subset is equally likely (He et al., MAE, CVPR 2022, "shuffle" in Sec. 3).
    """
    keep = scores.argsort(dim=1, stable=True)[:, :count]
    hidden = torch.ones_like(scores, dtype=torch.bool).scatter_(1, keep, False)
    return keep, hidden


def random_mask(scores: Tensor, chance: Tensor, p: float, low: float, high: float) -> Tensor:
    """(B, N) scores -> mask (B, N) bool: with probability `p` a fraction of each row between `low` and `high`, rounded up, else
    none. `chance` (B, 2) uniform random numbers determine whether, and how many tokens are masked."""
    fraction = (low + (high - low) * chance[:, 1]) * (chance[:, 0] < p)
    rank = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < (fraction * scores.shape[1]).ceil()[:, None]


def exclude_padding(hidden: Tensor, present: Tensor | None) -> Tensor:
    """The mask (B, N) without the tokens that are not `present` (B, N); None: all are (`TokenBackbone.present`)."""
    return hidden if present is None else hidden & present
