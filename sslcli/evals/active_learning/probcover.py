"""ProbCover: the samples whose neighborhoods cover the most others (Yehuda, Dekel, Hacohen & Weinshall, NeurIPS 2022,
arXiv:2205.11320, Alg. 1).

A sample covers all that are nearer than a radius; the next pick covers the most samples that no labeled or picked one covers. The
radius is the largest at which 95 % of the samples are pure: all samples nearer than it have the same pseudo-label, their
cluster of k-means with as many clusters as classes (Sec. 4.2). So it is the 5 % quantile of the distance to the nearest sample
of another cluster, here of at most 5,000 random samples.

Deviation: where a pick would cover no sample beside itself, the picks continue by greedy k-center (`kcenter.py`), which shrinks the
radius at which all samples are covered; as published, the order is then arbitrary.

The graph of covered pairs is not kept: memory is O(n), and every product of features is computed at most twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.active_learning.kcenter import farthest_first, kcenter
from sslcli.evals.active_learning.pool import Pick, Pool, distance
from sslcli.evals.fit.kmeans import kmeans
from sslcli.rng import derive, order

PURITY = 0.95
QUERIES = 5_000
BLOCK = 512  # samples compared with all at a time


def cover(pool: Pool, n: int, seed: int) -> list[Pick]:
    """The first n picks."""
    threshold = radius_cosine(pool, seed)
    radius = float(distance(torch.tensor(threshold)))
    uncovered = torch.ones(len(pool), dtype=torch.bool)
    gains = _degrees(pool.unit, threshold)
    for rows in pool.labeled.split(BLOCK):
        _cover(pool.unit, rows, threshold, uncovered, gains)
    gains[pool.labeled] = -1
    picks: list[Pick] = []
    while len(picks) < n:
        i = int(gains.argmax())
        gain = int(gains[i])
        if gain <= 1:
            break
        _cover(pool.unit, torch.tensor([i]), threshold, uncovered, gains)
        gains[i] = -1
        covered = 1 - float(uncovered.double().mean())
        picks.append(
            Pick(i, f"covers {gain} more samples nearer than {radius:.3f}, with those before {100 * covered:.1f} %")
        )
    if len(picks) == n:
        return picks
    centers = torch.cat([pool.labeled, torch.tensor([p.index for p in picks], dtype=torch.int64)])
    rest = n - len(picks)
    return picks + (farthest_first(pool, centers, rest) if len(centers) else kcenter(pool, rest, seed))


def radius_cosine(pool: Pool, seed: int) -> float:
    """The cosine of two samples at the radius. 1 where there is one cluster only, so that no sample covers others."""
    z = pool.unit
    k = min(pool.expected_classes, len(pool))
    pseudo = kmeans(z, k, seed=derive(seed, "cover"), n_init=3).assignment
    queries = order(derive(seed, "purity"), 0, len(pool))[:QUERIES]
    nearest = []
    for rows in queries.split(BLOCK):
        similarity = z[rows] @ z.T
        similarity.masked_fill_(pseudo[rows][:, None] == pseudo, -torch.inf)
        nearest.append(similarity.amax(dim=1))
    descending = torch.cat(nearest).sort(descending=True).values
    impure = int((1 - PURITY) * len(descending))  # this many may have another pseudo-label within the radius
    around = descending[max(0, impure - 1) : impure + 1]  # the middle: no pair is at the radius itself
    return float(around.mean()) if bool(around.isfinite().all()) else 1.0


def _degrees(z: Tensor, threshold: float) -> Tensor:
    """(n,) float32: how many samples, itself included, each sample covers; exact up to 2^24."""
    counts, ones = torch.zeros(len(z)), torch.ones(len(z))
    for start in range(0, len(z), BLOCK):
        near = _near(z[start : start + BLOCK], z[start:], threshold)  # symmetric: each pair of blocks is computed once
        size = len(near)
        near[:, :size].fill_diagonal_(1)
        counts[start : start + size] += near @ ones[start:]
        counts[start + size :] += ones[:size] @ near[:, size:]
    return counts


def _near(rows: Tensor, z: Tensor, threshold: float) -> Tensor:
    """(m, n) float32: 1 where a cosine of rows (m, d) with z (n, d) is above the threshold, else 0."""
    similarity = rows @ z.T
    return torch.gt(similarity, threshold, out=similarity)


def _cover(z: Tensor, rows: Tensor, threshold: float, uncovered: Tensor, gains: Tensor) -> None:
    """Marks what the samples `rows` (m,) cover, and takes it from the gains of all samples."""
    covered = _near(z[rows], z, threshold).sum(dim=0) > 0
    covered[rows] = True
    new = torch.nonzero(covered & uncovered).flatten()
    uncovered[new] = False
    for part in new.split(BLOCK):
        near = _near(z[part], z, threshold)
        near[torch.arange(len(part)), part] = 1
        gains -= torch.ones(len(part)) @ near
