"""Greedy k-center: always the sample that is farthest from all labeled and picked ones (Sener & Savarese, ICLR 2018, Alg. 1).

The distances are those of normalized features. Without labeled samples the first pick is random. The largest distance of a sample
to its nearest pick is at most twice the least that n picks can achieve (Gonzalez, 1985).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.active_learning.pool import Pick, Pool, distance
from sslcli.rng import derive, order


def kcenter(pool: Pool, n: int, seed: int) -> list[Pick]:
    """The first n picks."""
    first: list[Pick] = []
    if len(pool.labeled) == 0:
        first = [Pick(int(order(derive(seed, "kcenter"), 0, len(pool))[0]), "the first: random")][:n]
    centers = torch.cat([pool.labeled, torch.tensor([p.index for p in first], dtype=torch.int64)])
    return first + farthest_first(pool, centers, n - len(first))


def farthest_first(pool: Pool, centers: Tensor, n: int) -> list[Pick]:
    """n picks beside the samples `centers` (m,), m > 0."""
    nearest = torch.full((len(pool),), -torch.inf)  # the largest cosine with a center
    for part in centers.split(256):
        torch.maximum(nearest, (pool.unit @ pool.unit[part].T).amax(dim=1), out=nearest)
    nearest[centers] = torch.inf
    picks = []
    for _ in range(n):
        i = int(nearest.argmin())
        far = float(distance(nearest[i]))
        picks.append(Pick(i, f"at distance {far:.3f} from the nearest labeled or picked sample"))
        torch.maximum(nearest, pool.unit @ pool.unit[i], out=nearest)
        nearest[i] = torch.inf
    return picks
