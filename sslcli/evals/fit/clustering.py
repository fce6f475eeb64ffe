"""Clustering of features, fitted to training samples and applied to others. No label is read here.

`kmeans` takes features as they are and `spherical` their directions (both `sslcli.evals.fit.kmeans`). `gmm` (a mixture of
normal distributions) and `hdbscan` (Campello, Moulavi & Sander, PAKDD 2013: dense regions, and noise between them) are
scikit-learn's; both need few dimensions, so a principal component analysis of the training features comes first.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.errors import TrainingError
from sslcli.evals.fit.kmeans import kmeans
from sslcli.evals.metrics.agreement import NOISE
from sslcli.rng import derive, order

METHODS = ("kmeans", "spherical", "gmm", "hdbscan")
REDUCED = ("gmm", "hdbscan")
BLOCK = 1 << 24  # numbers in a table of samples by centers
PCA_ON = 10_000  # samples
HDBSCAN_ON = 10_000  # samples: its time grows with their square
GMM_ON = 20_000  # samples; their table by components, of which scikit-learn holds several, is the larger part of memory
FULL = 5  # samples a component and dimension that covariance matrices ask for; with fewer, variances only
SILHOUETTE_ON = 5_000  # samples that a silhouette is computed from: their distances are 100 MB


@dataclass(frozen=True)
class Settings:
    """How to divide, but for the number of clusters. `dims`: after the reduction, where there is one."""

    method: str = "kmeans"
    starts: int = 1
    dims: int = 32
    min_cluster_size: int | None = None


@dataclass
class Clustering:
    """Clusters (n,) int64 of two sets of samples, 0..clusters-1 or NOISE."""

    train: Tensor
    queries: Tensor
    clusters: int
    notes: list[str] = field(default_factory=list)


class Space:
    """Where a method measures distances: features as they are, their directions, or their principal components.

    The components are scaled together, to a mean variance of 1. Fitted to x (n, d); then (m, d) -> (m, p).
    """

    def __init__(self, x: Tensor, settings: Settings, seed: int):
        self.spherical = settings.method == "spherical"
        self.axes: Tensor | None = None
        self.words = "as they are"
        if self.spherical:
            self.words = "L2-normalised"
        if settings.method in REDUCED:
            self._reduce(x, settings.dims, seed)

    def _reduce(self, x: Tensor, dims: int, seed: int) -> None:
        from sklearn.decomposition import PCA

        subset = subsample(x, PCA_ON, derive(seed, "pca")).double()
        variance = float(subset.var(dim=0, correction=0).sum())
        if not variance > 0:
            raise TrainingError("the features of all samples are the same: there is nothing to divide")
        fit = PCA(min(dims, *subset.shape), random_state=derive(seed, "pca") % 2**32).fit(subset.numpy())
        ratios = torch.from_numpy(fit.explained_variance_ratio_)
        scale = math.sqrt(len(ratios) / float(ratios.sum() * variance))
        self.axes = (torch.from_numpy(fit.components_) * scale).float()  # (p, d)
        self.zero = self.axes @ torch.from_numpy(fit.mean_).float()
        self.words = (
            f"{len(ratios)} principal components of {len(subset):,} training samples "
            f"({float(ratios.sum()):.1%} of the variance)"
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self.axes is not None:
            return x @ self.axes.T - self.zero
        return F.normalize(x, dim=1) if self.spherical else x


def fit_clusters(
    train: Tensor, queries: Tensor, k: int, settings: Settings, seed: int, device: torch.device
) -> Clustering:
    """Clusters fitted to `train` (n, p), and those of `queries` (m, p), both in the method's space. `k` is not hdbscan's."""
    if settings.method == "hdbscan":
        return _hdbscan(train, queries, settings.min_cluster_size, seed)
    if settings.method == "gmm":
        return _gmm(train, queries, k, settings.starts, seed)
    device = float64_device(device)
    spherical = settings.method == "spherical"
    fit = kmeans(train.to(device), k, seed=seed, n_init=settings.starts, spherical=spherical)
    return Clustering(fit.assignment.cpu(), nearest(queries, fit.centers), k)


def float64_device(device: torch.device) -> torch.device:
    """Where sums can be float64: not on Apple's."""
    return torch.device("cpu") if device.type == "mps" else device


def nearest(x: Tensor, centers: Tensor) -> Tensor:
    """(n,) int64, on the CPU: which of `centres` (k, p) is nearest to each row of x (n, p); of equal ones the first."""
    middle = centers.mean(dim=0)  # products would lose precision far from the origin
    centers = centers - middle
    half = centers.square().sum(dim=1).mul_(-0.5)
    size = max(1, BLOCK // len(centers))
    parts = (part.to(centers.device) - middle for part in x.split(size))
    return torch.cat([torch.addmm(half, part, centers.T).argmax(dim=1).cpu() for part in parts])


def _gmm(train: Tensor, queries: Tensor, k: int, starts: int, seed: int) -> Clustering:
    """Of full covariance matrices where there are samples enough for them, else of diagonal ones."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    subset = subsample(train, max(GMM_ON, 2 * k), derive(seed, "gmm"))
    kind = "full" if len(subset) >= FULL * k * train.shape[1] else "diag"
    notes = [f"gmm: {'full' if kind == 'full' else 'diagonal'} covariances, fitted to {len(subset):,} training samples"]
    model = GaussianMixture(k, covariance_type=kind, n_init=starts, max_iter=200, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged_` reports it
        model.fit(subset.double().numpy())
    if not model.converged_:
        notes.append(f"gmm: stopped after {model.n_iter_} iterations, before it had converged")

    def predict(x: Tensor) -> Tensor:
        blocks = x.split(max(1, BLOCK // (4 * k)))
        return torch.cat([torch.from_numpy(model.predict(b.double().numpy())) for b in blocks]).long()

    return Clustering(predict(train), predict(queries), k, notes)


def _hdbscan(train: Tensor, queries: Tensor, min_cluster_size: int | None, seed: int) -> Clustering:
    """Fitted to at most HDBSCAN_ON samples; any other goes where the nearest of those went, be it to noise."""
    from sklearn.cluster import HDBSCAN

    rows = subsample_rows(len(train), HDBSCAN_ON, derive(seed, "hdbscan"))
    size = min_cluster_size or max(5, len(rows) // 100)
    fitted = train[rows]
    fit = HDBSCAN(min_cluster_size=size, min_samples=min(5, len(rows)), copy=True).fit(fitted.double().numpy())
    labels = torch.from_numpy(fit.labels_).long()
    notes = [
        f"hdbscan: fitted to {len(rows):,} training samples with clusters of at least {size}; "
        "any other sample goes where the nearest of these went"
    ]
    if len(rows) == len(train):
        return Clustering(labels, labels[nearest(queries, fitted)], int(labels.max()) + 1, notes)
    of_train = labels[nearest(train, fitted)]
    of_train[rows] = labels
    return Clustering(of_train, labels[nearest(queries, fitted)], int(labels.max()) + 1, notes)


# ------------------------------------------------------------------------------------------------- how well, and how many


def subsample_rows(n: int, at_most: int, seed: int) -> Tensor:
    """(m,) int64, ascending: all of n rows, or a draw of `at_most`."""
    return torch.arange(n) if n <= at_most else order(seed, 0, n)[:at_most].sort().values


def subsample(x: Tensor, at_most: int, seed: int) -> Tensor:
    """Those rows of x; x itself where they are all."""
    return x if len(x) <= at_most else x[subsample_rows(len(x), at_most, seed)]


def distances(x: Tensor, cosine: bool = False) -> Tensor:
    """(n, n) float32 between the rows of x (n, p): Euclidean, or one less the cosine. For few."""
    if cosine:
        table = torch.mm(x, x.T).neg_().add_(1)
    else:
        x = x - x.mean(dim=0)
        squares = x.square().sum(dim=1)
        table = torch.addmm(squares, x, x.T, alpha=-2).add_(squares[:, None])
    table.clamp_(min=0).fill_diagonal_(0)
    return table if cosine else table.sqrt_()


def silhouette(table: Tensor, assignment: Tensor) -> float:
    """Mean over samples of (b - a) / max(a, b): a is the mean distance to the others of a sample's cluster, b that to the
    nearest other cluster's. -1..1; a sample alone in its cluster has 0 (Rousseeuw 1987), as has noise, and everything
    where there are fewer than two clusters. `table`: (n, n) distances; `assignment`: (n,).
    """
    clustered = assignment != NOISE
    if not bool(clustered.all()):
        inside = silhouette(table[clustered][:, clustered], assignment[clustered]) if bool(clustered.any()) else 0.0
        return inside * float(clustered.double().mean())
    names, cluster = assignment.unique(return_inverse=True)
    if len(names) < 2:
        return 0.0
    counts = cluster.bincount()
    sums = table @ F.one_hot(cluster).to(table.dtype)  # (n, k)
    alone = counts[cluster] == 1
    a = sums.gather(1, cluster[:, None])[:, 0] / (counts[cluster] - 1).clamp(min=1)
    b = (sums / counts).scatter_(1, cluster[:, None], torch.inf).amin(dim=1)
    s = ((b - a) / torch.maximum(a, b)).nan_to_num(0.0)  # 0 / 0: samples that are all alike
    return float(s.masked_fill(alone, 0.0).mean(dtype=torch.float64))


def ladder(most: int) -> list[int]:
    """Numbers of clusters to try: each up to 15, then in steps of a fifth."""
    steps = list(range(2, min(15, most) + 1))
    while steps and (step := round(steps[-1] * 1.2)) <= most:
        steps.append(step)
    return steps


def estimate(x: Tensor, spherical: bool, most: int, seed: int) -> tuple[int, dict[str, list[float]]]:
    """The number of clusters of x (n, p) whose k-means has the largest silhouette on at most LOOKED_AT samples, and the
    curve: {"k": ..., "silhouette": ...}.

    Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987. It
    leans to few clusters where large groups hold small ones: look at the curve.
    """
    subset = subsample(x, SILHOUETTE_ON, derive(seed, "estimate"))
    table = distances(subset, spherical)
    tried = ladder(min(most, len(subset) // 2))
    if not tried:
        return 1, {"k": [1], "silhouette": [0.0]}
    fit = (kmeans(subset, k, seed=seed, n_init=3, spherical=spherical) for k in tried)
    curve = [silhouette(table, clusters.assignment) for clusters in fit]
    best = max(range(len(tried)), key=lambda i: curve[i])
    return tried[best], {"k": [float(k) for k in tried], "silhouette": curve}
