"""k-means: greedy k-means++ to start (Arthur & Vassilvitskii, SODA 2007, as scikit-learn's), then Lloyd's iterations.

What makes it fast, and changes no result but for rounding: blocks of samples small enough for a processor's cache, each
worked on by one thread; sums that are updated with the moved samples only; and for each sample a lower bound on how much
nearer its own center is than any other, so that it is looked at again only when the centers have moved by as much (Hamerly,
"Making k-means even faster", SDM 2010). Sums are float64, products float32.

Spherical k-means: samples and centers are unit vectors, so that the nearest center is that of largest cosine (Dhillon &
Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 42, 2001).

On a CPU the result is the same, bit for bit, for any number of threads. On a GPU sums are added in no fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.errors import RequestError
from sslcli.evals.fit.kmeans_blocks import Blocks, open_blocks
from sslcli.rng import derive

MOST_ACTIVE = 0.6  # of all samples; above, all are looked at: taking them out one by one costs more
SLACK = 1e-5  # of a sample's norm: what rounding may do to a difference of two distances
SUMMED = 2048  # samples whose float64 copies exist at a time


@dataclass(frozen=True)
class Clusters:
    """`assignment` is to the nearest of `centres`; `inertia` the sum of squared distances to them."""

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
    """k clusters of x (N, D), on x's device: of `n_init` starts the one of least inertia.

    An iteration ends the search when no sample moves, or when the centers together move by less than `tol` times the mean
    variance of a feature (squared). Beside x itself memory is a few numbers a sample and `k` x D. A cluster that loses
    all samples goes on from the sample farthest from its center; where there are fewer different samples than k, some
    clusters stay empty. `spherical`: the rows of x are unit vectors (or 0), and so is each center after each iteration.

    Raises RequestError for k and the other numbers, DataError where x is not finite.
    """
    _check(x, k, n_init, max_iter, tol)
    with open_blocks(x) as rows:
        attempts = [
            _Lloyd(rows, _plus_plus(rows, k, derive(seed, "k-means", attempt)), spherical).run(max_iter, tol)
            for attempt in range(n_init)
        ]
    return min(attempts, key=lambda c: c.inertia)


def lloyd(x: Tensor, centers: Tensor, *, max_iter: int = 300, tol: float = 1e-4, spherical: bool = False) -> Clusters:
    """The same from given centers (k, D)."""
    _check(x, len(centers), 1, max_iter, tol)
    with open_blocks(x) as rows:
        return _Lloyd(rows, centers.to(rows.x) - rows.mean, spherical).run(max_iter, tol)


def _check(x: Tensor, k: int, n_init: int, max_iter: int, tol: float) -> None:
    assert x.ndim == 2, tuple(x.shape)
    if not 1 <= k <= len(x):
        raise RequestError(f"k={k}: from 1 to as many clusters as there are samples ({len(x):,}) can be made", "k=10")
    if n_init < 1 or max_iter < 1 or not tol >= 0:
        raise RequestError(f"k-means wants n_init ({n_init}) and max_iter ({max_iter}) from 1 and tol ({tol}) from 0")


# ---------------------------------------------------------------------------------------------------- blocks of samples


# ------------------------------------------------------------------------------------------------------------ the start


def _plus_plus(rows: Blocks, k: int, seed: int) -> Tensor:
    """(k, D): samples far from each other. Each is the best of 2 + log k drawn by their squared distance to the nearest
    center so far."""
    n, device = len(rows.x), rows.x.device
    generator = torch.Generator().manual_seed(seed)
    trials = 2 + int(math.log(k))
    closest = torch.full((n,), torch.inf, device=device)
    tried = rows.x.new_empty(trials, n)
    parts = rows.blocks(trials)

    def nearer(part: slice) -> Tensor:
        """(candidates,) what would be left of the sum of `closest`."""
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
        closest[chosen[-1]] = 0.0  # and not what rounding makes of it
        sums = closest.cumsum(0, dtype=torch.float64)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(device) * sums[-1]
        picked = torch.searchsorted(sums, draws).clamp_(max=n - 1).cpu()


# ------------------------------------------------------------------------------------------------------- the iterations


class _Lloyd:
    """Centers, and the samples that each has."""

    def __init__(self, rows: Blocks, centers: Tensor, spherical: bool):
        self.rows, self.centers, self.k, self.spherical = rows, centers, len(centers), spherical
        n, d = rows.x.shape
        device = rows.x.device
        self.assignment = torch.full((n,), -1, device=device)
        self.margin = torch.full((n,), -1.0, device=device)  # a sample is looked at again when it is below 0
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
        """Each sample to its nearest center; how many were elsewhere before."""
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
        """Sums and counts, of samples that have moved. Each thread has some of the features."""
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
        """Each center to the mean of its samples (its direction, on the sphere); the sum of the squared ways."""
        sums, counts = self._filled()
        centers = (sums / counts.clamp(min=1)[:, None]).float()
        selected = counts[:, None] > 0
        if self.spherical:
            whole = centers + self.rows.mean
            length = torch.linalg.vector_norm(whole, dim=1, keepdim=True)
            selected &= length > 0  # samples that point every way have no direction in common
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
        """Sums and counts after each empty cluster was given a sample, the farthest ones, as in scikit-learn."""
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
        """(N,) squared, of each sample to its center."""
        out = torch.empty_like(self.margin)

        def measure(part: slice) -> None:
            out[part] = (self.rows.take(part) - self.centers[self.assignment[part]]).square_().sum(dim=1)

        self.rows.each(measure, self.rows.blocks(self.k))
        return out
