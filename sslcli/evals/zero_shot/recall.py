"""Recall of the K most similar: whether one of the right items is among them."""

from __future__ import annotations

import torch
from torch import Tensor

KS = (1, 5, 10)


def best_ranks(scores: Tensor, right: Tensor) -> Tensor:
    """The rank (n,) float64, from 1, of the best right item of each row of scores (n, m); half of the wrong items with an equal
    score count as better. right: (n, m) bool, true somewhere in each row."""
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    wrong = ~right
    above, equal = ((scores > best) & wrong).sum(dim=1), ((scores == best) & wrong).sum(dim=1)
    return 1 + above.double() + equal.double() / 2


def chance_recall(right: Tensor, items: int, k: int) -> float:
    """The mean expectation that a random order of `items` has one of the right (n,) items of a query among its first k."""
    missed = torch.ones(len(right), dtype=torch.float64)
    for i in range(min(k, items)):
        missed *= (items - right - i).clamp(min=0).double() / (items - i)
    return float(1 - missed.mean())
