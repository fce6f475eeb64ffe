"""k-means: greedy k-means++ initialization (Arthur & Vassilvitskii, SODA 2007; as in scikit-learn) and Lloyd's algorithm.

Three optimizations change results only by rounding. Samples are processed in blocks that fit into a core's cache, one
thread per block. Cluster sums are updated with reassigned samples only. A lower bound on the difference between the
distances to the second nearest and the nearest center is kept per sample, and the sample is compared with the centers
again only after they have moved by that much (Hamerly, "Making k-means even faster", SDM 2010). Sums are float64,
products float32.

Spherical k-means: samples and centers are unit vectors, and a sample belongs to the center of largest cosine similarity
(Dhillon & Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 42, 2001).

On a CPU the result is bit-identical for any number of threads. On a GPU the order of summation is not fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.errors import RequestError
from sslcli.evals.fit.kmeans_blocks import Blocks, open_blocks
from sslcli.rng import derive

MOST_ACTIVE = 0.6  # fraction of samples; above it all samples are compared, because gathering rows costs more
SLACK = 1e-5  # relative to a sample's norm: bound on the rounding error of a difference of two distances
SUMMED = 2048  # samples converted to float64 at a time


@dataclass(frozen=True)
class Clusters:
    """Result of k-means. `assignment` is the index of the nearest of `centers`; `inertia` the sum of squared distances."""

    centers: Tensor  # (k, D) float32, on the device of the samples
    assignment: Tensor  # (N,) int64
    inertia: float
    iterations: int


def kmeans(
    x: Tensor,
    k: int,
    *,
    seed: int,
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    spherical: bool = False,
) -> Clusters:
    """Cluster x (N, D) into k clusters on x's device; of `n_init` initializations return the one of least inertia.

    Lloyd's algorithm stops when no sample changes its cluster, or when the sum of squared center shifts is at most `tol`
    times the mean variance of the features. Memory beside x is O(N + k D). An empty cluster is moved to the sample farthest
    from its center; if there are fewer distinct samples than k, some clusters stay empty. With `spherical`, the rows of x
    must be unit vectors (or 0), and each center is normalized after each iteration.

    Raises RequestError if an argument is out of range, DataError if x is not finite.
    """
    _check(x, k, n_init, max_iter, tol)
    with open_blocks(x) as rows:
        attempts = [
            _Lloyd(rows, _plus_plus(rows, k, derive(seed, "k-means", attempt)), spherical).run(max_iter, tol)
            for attempt in range(n_init)
        ]
    return min(attempts, key=lambda c: c.inertia)


def lloyd(x: Tensor, centers: Tensor, *, max_iter: int = 300, tol: float = 1e-4, spherical: bool = False) -> Clusters:
    """Run Lloyd's algorithm from given initial centers (k, D)."""
    _check(x, len(centers), 1, max_iter, tol)
    with open_blocks(x) as rows:
        return _Lloyd(rows, centers.to(rows.x) - rows.mean, spherical).run(max_iter, tol)


def _check(x: Tensor, k: int, n_init: int, max_iter: int, tol: float) -> None:
    assert x.ndim == 2, tuple(x.shape)
    if not 1 <= k <= len(x):
        raise RequestError(f"k={k}: expected from 1 to the number of samples ({len(x):,})", "k=10")
    if n_init < 1 or max_iter < 1 or not tol >= 0:
        raise RequestError(
            f"k-means requires n_init >= 1, max_iter >= 1 and tol >= 0, got {n_init}, {max_iter} and {tol}"
        )


# ------------------------------------------------------------------------------------------------------- initialization


def _plus_plus(rows: Blocks, k: int, seed: int) -> Tensor:
    """Greedy k-means++ initialization: samples (k, D) that are far from each other.

    Each is the best of 2 + log k candidates, drawn with probability proportional to the squared distance to the nearest
    center chosen before.
    """
    n, device = len(rows.x), rows.x.device
    generator = torch.Generator().manual_seed(seed)
    trials = 2 + int(math.log(k))
    closest = torch.full((n,), torch.inf, device=device)
    tried = rows.x.new_empty(trials, n)
    parts = rows.blocks(trials)

    def nearer(part: slice) -> Tensor:
        """Sum over a block of the squared distances to the nearest center after adding each candidate: (candidates,)."""
        scores = torch.addmm(half, candidates, rows.take(part).T)
        left = scores.mul_(-2).add_(rows.norms[part]).clamp_(min=0)
        tried[: len(left), part] = torch.minimum(left, closest[part], out=left)
        return left.sum(dim=1, dtype=torch.float64)

    picked = torch.randint(n, (1,), generator=generator)
    chosen: list[int] = []
    while True:
        candidates = rows.take(picked.to(device)).clone()
        half = candidates.square().sum(dim=1, keepdim=True).mul_(-0.5)
        best = int(torch.stack(rows.each(nearer, parts)).sum(dim=0).argmin())
        chosen.append(int(picked[best]))
        if len(chosen) == k:
            return rows.take(torch.tensor(chosen, device=device)).clone()
        closest.copy_(tried[best])
        closest[chosen[-1]] = 0.0  # exact; rounding could leave a positive distance
        sums = closest.cumsum(0, dtype=torch.float64)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(device) * sums[-1]
        picked = torch.searchsorted(sums, draws).clamp_(max=n - 1).cpu()


# ---------------------------------------------------------------------------------------------------- Lloyd's algorithm


class _Lloyd:
    """State of Lloyd's algorithm: centers, assignment, and the sum and count of each cluster."""

    def __init__(self, rows: Blocks, centers: Tensor, spherical: bool):
        self.rows, self.centers, self.k, self.spherical = rows, centers, len(centers), spherical
        n, d = rows.x.shape
        device = rows.x.device
        self.assignment = torch.full((n,), -1, device=device)
        self.margin = torch.full(
            (n,), -1.0, device=device
        )  # lower bound (Hamerly); a sample is compared again when it is below 0
        self.sums = torch.zeros(self.k, d, dtype=torch.float64, device=device)
        self.counts = torch.zeros(self.k, dtype=torch.int64, device=device)

    def run(self, max_iter: int, tol: float) -> Clusters:
        iterations, converged = 0, False
        while iterations < max_iter and not converged:
            iterations += 1
            moved = self.assign()
            converged = moved == 0
            shift = self.move()
            if shift <= tol * self.rows.variance:
                break
        if not converged:
            self.assign()
        inertia = float(self.distances().sum(dtype=torch.float64))
        return Clusters(self.centers + self.rows.mean, self.assignment, inertia, iterations)

    def assign(self) -> int:
        """Assign each sample to its nearest center; return how many changed their cluster."""
        rows, half = self.rows, self.centers.square().sum(dim=1, keepdim=True).mul_(-0.5)
        active = (self.margin < 0).nonzero().flatten()
        all_of_them = len(active) > MOST_ACTIVE * len(self.margin)
        if all_of_them:
            active = torch.arange(len(self.margin), device=active.device)
        near, next_ = self.margin.new_empty(2, len(active))
        nearest = torch.empty_like(active)

        def nearest_in_block(part: slice) -> None:
            block = rows.take(part if all_of_them else active[part])
            scores = torch.addmm(half, self.centers, block.T)  # (k, B): half of the norm less the squared distance
            torch.max(scores, dim=0, out=(near[part], nearest[part]))
            torch.amax(scores.scatter_(0, nearest[None, part], -torch.inf), dim=0, out=next_[part])

        rows.each(nearest_in_block, rows.blocks(self.k, len(active)))
        norms = rows.norms[active]
        near, next_ = ((norms - 2 * scores).clamp_(min=0).sqrt_() for scores in (near, next_))
        self.margin[active] = next_.sub_(near).sub_(SLACK * norms.sqrt_())
        before = self.assignment[active]
        moved = (nearest != before).nonzero().flatten()
        self._update_sums(active[moved], before[moved], nearest[moved])
        self.assignment[active] = nearest
        return len(moved)

    def _update_sums(self, moved: Tensor, before: Tensor, now: Tensor) -> None:
        """Update sums and counts with the reassigned samples. Each thread works on a subset of the features."""
        rows, first = self.rows, len(before) > 0 and int(before[0]) < 0

        def add(columns: Tensor) -> None:
            selected = slice(int(columns[0]), int(columns[-1]) + 1)
            x, sums = rows.x[:, selected], self.sums[:, selected]
            for ids, old, new in zip(*(t.split(SUMMED) for t in (moved, before, now)), strict=True):
                values = (x[ids] - rows.mean[selected]).double()
                sums.index_add_(0, new, values)
                if not first:
                    sums.index_add_(0, old, values, alpha=-1)

        rows.each(add, torch.arange(rows.x.shape[1]).chunk(rows.threads))
        self.counts += now.bincount(minlength=self.k)
        if not first:
            self.counts -= before.bincount(minlength=self.k)

    def move(self) -> float:
        """Move each center to the mean of its samples (normalized if spherical); return the sum of squared shifts."""
        sums, counts = self._filled()
        centers = (sums / counts.clamp(min=1)[:, None]).float()
        selected = counts[:, None] > 0
        if self.spherical:
            whole = centers + self.rows.mean
            length = torch.linalg.vector_norm(whole, dim=1, keepdim=True)
            selected &= length > 0  # a mean of zero has no direction: the center stays
            centers = whole / torch.where(selected, length, 1.0) - self.rows.mean
        centers = torch.where(selected, centers, self.centers)
        squares = (centers - self.centers).square().sum(dim=1, dtype=torch.float64)
        self.centers = centers
        shifts = squares.sqrt().float()
        longest, at = shifts.max(dim=0)
        others = torch.full_like(shifts, float(longest))
        others[at] = shifts.topk(min(2, self.k)).values[-1]
        self.margin -= (shifts + others)[self.assignment]
        return float(squares.sum())

    def _filled(self) -> tuple[Tensor, Tensor]:
        """Sums and counts after moving the farthest samples into empty clusters, as in scikit-learn."""
        empty = (self.counts == 0).nonzero().flatten().tolist()
        if not empty:
            return self.sums, self.counts
        sums, counts = self.sums.clone(), self.counts.clone()
        distances, far = self.distances().topk(len(empty))
        for cluster, i in zip(empty, far[distances > 0].tolist(), strict=False):
            sample, owner = self.rows.take(slice(i, i + 1))[0].double(), int(self.assignment[i])
            sums[owner] -= sample
            counts[owner] -= 1
            sums[cluster] = sample
            counts[cluster] = 1
        return sums, counts

    def distances(self) -> Tensor:
        """Squared distance of each sample to its center: (N,)."""
        out = torch.empty_like(self.margin)

        def measure(part: slice) -> None:
            out[part] = (self.rows.take(part) - self.centers[self.assignment[part]]).square_().sum(dim=1)

        self.rows.each(measure, self.rows.blocks(self.k))
        return out
