"""Which tokens are hidden."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_count(tokens: int, ratio: float) -> int:
    """How many of `tokens` stay visible when `ratio` of them is hidden: rounded down; one is seen, and one hidden."""
    return min(max(int(tokens * (1 - ratio)), 1), max(tokens - 1, 1))


def random_keep(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, N) scores -> the `count` smallest of each row: their places (B, count) int64, and what is hidden (B, N) bool.

    With uniform scores every subset is equally likely (He et al., MAE, CVPR 2022, "shuffle" in Sec. 3).
    """
    keep = scores.argsort(dim=1, stable=True)[:, :count]
    hidden = torch.ones_like(scores, dtype=torch.bool).scatter_(1, keep, False)
    return keep, hidden


def some_hidden(scores: Tensor, chance: Tensor, p: float, low: float, high: float) -> Tensor:
    """(B, N) scores -> what is hidden (B, N) bool: with probability `p` a share of each row between `low` and `high`, rounded
    up, else nothing. `chance` (B, 2) uniform numbers decide whether, and how much."""
    share = (low + (high - low) * chance[:, 1]) * (chance[:, 0] < p)
    rank = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < (share * scores.shape[1]).ceil()[:, None]
