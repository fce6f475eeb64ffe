"""Ward's hierarchical clustering of weighted points (Ward, JASA 1963): clusters that are nested for every number of clusters."""

from __future__ import annotations

import torch
from torch import Tensor


def ward_merges(points: Tensor, weights: Tensor) -> list[tuple[int, int]]:
    """The m - 1 merges of points (m, d) with positive weights (m,), cheapest first.

    A merge (a, b), a < b, joins cluster b to cluster a; a cluster has the number of its first point. Merging clusters of weights
    v and w whose means are at the distance r raises the sum of squared distances to the means by v w / (v + w) r^2, and the pair
    with the least increase is merged. Memory is O(m^2).
    """
    means, weights = points.double().clone(), weights.double().clone()
    m = len(means)
    cost = torch.full((m, m), torch.inf, dtype=torch.float64)
    for a in range(m - 1):
        cost[a, a + 1 :] = _increase(means, weights, a)[a + 1 :]
    best, partner = cost.min(dim=1) if m > 1 else (torch.empty(0), torch.empty(0))
    alive = torch.ones(m, dtype=torch.bool)
    merges = []
    for _ in range(m - 1):
        a = int(best.argmin())
        b = int(partner[a])
        merges.append((a, b))
        total = weights[a] + weights[b]
        means[a] = (weights[a] * means[a] + weights[b] * means[b]) / total
        weights[a] = total
        alive[b] = False
        cost[b], cost[:, b] = torch.inf, torch.inf
        row = torch.where(alive, _increase(means, weights, a), torch.inf)
        cost[a, a + 1 :], cost[:a, a] = row[a + 1 :], row[:a]
        best, partner = cost.min(dim=1)
    return merges


def _increase(means: Tensor, weights: Tensor, a: int) -> Tensor:
    """(m,): the increase of the sum of squares by a merge with cluster a."""
    return weights * weights[a] / (weights + weights[a]) * (means - means[a]).square().sum(dim=1)
