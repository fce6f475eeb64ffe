"""TypiClust: the most typical sample of each cluster (Hacohen, Dekel & Weinshall, ICML 2022, arXiv:2202.02794, Sec. 3.2).

The typicality of a sample is the inverse of its mean distance to its 20 nearest neighbors. As published, n picks beside m labeled
samples come from k-means with k = n + m clusters: the most typical sample of each cluster without a label. The picks for n = 50
are then no subset of those for n = 100.

Deviation: here the clusters are nested, so that the first 50 of 100 picks are the picks for n = 50. k-means with 500 clusters, the
most that the authors' code uses, is followed by Ward's hierarchical clustering of the centers. Each of the 500 clusters proposes
its most typical sample, and where Ward merges two clusters, the proposal which is more typical of the merged one is proposed by it.
As published, the neighbors of a sample are those in its cluster: 20, at most half of the cluster. The first pick is the proposal of
all samples; then the clusters are split in the reverse order of the merges, and whenever a split leaves a cluster without a pick
and without a labeled sample, its proposal is next. So n picks are the proposals of n clusters.

Measured beside the publication's k-means in docs/results/picks.md.

After the 500 clusters, further picks are as published: from the cluster with the fewest labels, of these the largest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcli.evals.active_learning.pool import Pick, Pool, distance
from sslcli.evals.active_learning.ward import ward_merges
from sslcli.evals.fit.kmeans import kmeans
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.rng import derive

CLUSTERS = 500
ITERATIONS = 10  # of k-means: of so many clusters, a fair partition suffices
NEIGHBORS = 20


@dataclass(frozen=True)
class _Fine:
    """The finest clusters. Of n samples: the cluster (n,) of each, and its mean distance (n,) to its neighbors in the cluster."""

    assignment: Tensor
    sizes: Tensor
    means: Tensor  # (k, d)
    spread: Tensor


@dataclass(frozen=True)
class _Cluster:
    """A cluster of the hierarchy, with the sample that it proposes.

    start, stop: its samples, in an order where those of each cluster are consecutive. near: the distances of the proposed sample to
    its nearest neighbors in the cluster, ascending. labeled: whether it has a labeled sample."""

    start: int
    stop: int
    proposed: int
    near: Tensor
    labeled: bool

    @property
    def size(self) -> int:
        return self.stop - self.start

    def spread(self) -> float:
        return _mean_distance(self.near, self.size)


def typical(pool: Pool, n: int, seed: int) -> list[Pick]:
    """The first n picks."""
    fine = _fine_clusters(pool.unit, seed)
    clusters = _splits(pool, fine)[:n]
    picks = [_pick(cluster.proposed, cluster.size, cluster.spread()) for cluster in clusters]
    return picks + _further(pool, fine, picks, n - len(picks))


def _fine_clusters(z: Tensor, seed: int) -> _Fine:
    k = min(CLUSTERS, len(z))
    found = kmeans(z, k, seed=derive(seed, "typical"), max_iter=ITERATIONS).assignment
    assignment = found.unique(return_inverse=True)[1]  # without the empty ones
    sizes = assignment.bincount()
    means = torch.zeros(len(sizes), z.shape[1]).index_add_(0, assignment, z) / sizes[:, None]
    spread = torch.full((len(z),), torch.inf)
    for rows in assignment.argsort(stable=True).split(sizes.tolist()):
        near = _nearest(z[rows], z[rows])[:, 1:]  # the nearest is the sample itself
        spread[rows] = torch.tensor([_mean_distance(row, len(rows)) for row in near])
    return _Fine(assignment, sizes, means, spread)


def _nearest(z: Tensor, queries: Tensor) -> Tensor:
    """(q, k): the distances of unit vectors (q, d) to their nearest among z (n, d), ascending, one more than are needed."""
    return distance(nearest_neighbors(z, queries, min(NEIGHBORS + 1, len(z)))[0])


def _mean_distance(near: Tensor, size: int) -> float:
    """The inverse of typicality (Eq. 1) in a cluster, from the ascending distances to its neighbors: 20, at most half of the
    cluster. Infinite for the only sample of a cluster."""
    k = max(1, min(NEIGHBORS, size // 2))
    return float(near[:k].mean()) if len(near) else float("inf")


def _splits(pool: Pool, fine: _Fine) -> list[_Cluster]:
    """The clusters without a labeled sample or an earlier pick, in the order in which splits make them."""
    merges = ward_merges(fine.means, fine.sizes)
    leaves: list[list[int]] = [[i] for i in range(len(fine.sizes))]
    for a, b in merges:
        leaves[a] += leaves[b]
    members = fine.assignment.argsort(stable=True).split(fine.sizes.tolist())
    order = torch.cat([members[leaf] for leaf in leaves[0]])
    z = pool.unit[order]
    labeled = fine.assignment[pool.labeled].bincount(minlength=len(fine.sizes)) > 0
    clusters: dict[int, _Cluster] = {}
    start = 0
    for leaf in leaves[0]:
        rows = members[leaf]
        proposed = int(rows[fine.spread[rows].argmin()])
        stop = start + len(rows)
        near = _nearest(z[start:stop], pool.unit[proposed : proposed + 1])[0, 1:]
        clusters[leaf] = _Cluster(start, stop, proposed, near, bool(labeled[leaf]))
        start = stop
    splits: list[_Cluster] = []
    for a, b in merges:
        one, other = clusters[a], clusters[b]
        splits = [one, other, *splits]
        clusters[a] = _merge(one, other, z, pool.unit)
    picked: dict[int, _Cluster] = {}
    for cluster in (clusters[0], *splits):
        if not cluster.labeled:
            picked.setdefault(cluster.proposed, cluster)
    return list(picked.values())


def _merge(one: _Cluster, other: _Cluster, z: Tensor, unit: Tensor) -> _Cluster:
    """Two clusters as one, which proposes what is more typical of it; of equal ones, the earlier sample. z: in the order of the
    clusters; unit: in that of the pool."""
    bounds = {"start": min(one.start, other.start), "stop": max(one.stop, other.stop)}
    candidates = []
    for own, added in ((one, other), (other, one)):
        far = _nearest(z[added.start : added.stop], unit[own.proposed : own.proposed + 1])[0]
        near = torch.cat([own.near, far]).sort().values[:NEIGHBORS]
        candidates.append(replace(own, **bounds, near=near, labeled=one.labeled or other.labeled))
    return min(candidates, key=lambda cluster: (cluster.spread(), cluster.proposed))


def _further(pool: Pool, fine: _Fine, picks: list[Pick], n: int) -> list[Pick]:
    """n more picks, each the most typical of the rest of the cluster with the fewest labels; of these, the largest."""
    if n == 0:
        return []
    taken = torch.zeros(len(pool), dtype=torch.bool)
    taken[pool.labeled] = True
    taken[[pick.index for pick in picks]] = True
    labels = fine.assignment[taken].bincount(minlength=len(fine.sizes)).tolist()
    sizes = fine.sizes.tolist()
    order = []
    for i in fine.spread.argsort(stable=True).tolist():
        if not taken[i]:
            cluster = int(fine.assignment[i])
            order.append((labels[cluster], -sizes[cluster], cluster, i))
            labels[cluster] += 1
    return [_pick(i, -size, float(fine.spread[i])) for _, size, _, i in sorted(order)[:n]]


def _pick(index: int, size: int, spread: float) -> Pick:
    if size == 1:
        return Pick(index, "the only sample of a cluster")
    return Pick(
        index, f"typical of a cluster of {size}: distance {spread:.3f} on average to its nearest neighbors there"
    )
