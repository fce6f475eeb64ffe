"""Clustering of features, fitted to training samples and applied to query samples. No label is read here.

`kmeans` clusters the features, `spherical` the L2-normalized features (both `sslcli.evals.fit.kmeans`). `gmm` (Gaussian
mixture model) and `hdbscan` (Campello, Moulavi & Sander, PAKDD 2013: density-based, with noise) are scikit-learn's; both
need few dimensions, so the features are first projected to principal components of the training features.
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
BLOCK = 1 << 24  # elements in a matrix of samples by centers
PCA_ON = 10_000  # samples
HDBSCAN_ON = 10_000  # samples: its time grows with their square
GMM_ON = 20_000  # samples; scikit-learn holds several matrices of samples by components, which dominate memory
FULL = 5  # samples per component and dimension needed for full covariance matrices; with fewer, diagonal ones
SILHOUETTE_ON = 5_000  # samples used for a silhouette; their distance matrix takes 100 MB


@dataclass(frozen=True)
class Settings:
    """Settings of a clustering method except the number of clusters. `dims`: principal components, for gmm and hdbscan."""

    method: str = "kmeans"
    starts: int = 1
    dims: int = 32
    min_cluster_size: int | None = None


@dataclass
class Clustering:
    """Cluster assignments (n,) int64 of the training and the query samples, in 0..clusters-1 or NOISE."""

    train: Tensor
    queries: Tensor
    clusters: int
    notes: list[str] = field(default_factory=list)


class Space:
    """Feature space in which a method measures distances: features, L2-normalized features, or principal components.

    Principal components share one scale factor that gives them a mean variance of 1. Fitted to x (n, d); maps (m, d) to
    (m, p).
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
            raise TrainingError("the features of all samples are equal: there is nothing to cluster")
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
    """Fit clusters to `train` (n, p) and assign `queries` (m, p), both in the method's space. hdbscan ignores `k`."""
    if settings.method == "hdbscan":
        return _hdbscan(train, queries, settings.min_cluster_size, seed)
    if settings.method == "gmm":
        return _gmm(train, queries, k, settings.starts, seed)
    device = float64_device(device)
    spherical = settings.method == "spherical"
    fit = kmeans(train.to(device), k, seed=seed, n_init=settings.starts, spherical=spherical)
    return Clustering(fit.assignment.cpu(), nearest(queries, fit.centers), k)


def float64_device(device: torch.device) -> torch.device:
    """The device, or the CPU if it lacks float64 (mps)."""
    return torch.device("cpu") if device.type == "mps" else device


def nearest(x: Tensor, centers: Tensor) -> Tensor:
    """Index of the nearest of `centers` (k, p) to each row of x (n, p): (n,) int64 on the CPU. Ties go to the first."""
    middle = centers.mean(dim=0)  # centered: products lose precision far from the origin
    centers = centers - middle
    half = centers.square().sum(dim=1).mul_(-0.5)
    size = max(1, BLOCK // len(centers))
    parts = (part.to(centers.device) - middle for part in x.split(size))
    return torch.cat([torch.addmm(half, part, centers.T).argmax(dim=1).cpu() for part in parts])


def _gmm(train: Tensor, queries: Tensor, k: int, starts: int, seed: int) -> Clustering:
    """Gaussian mixture with full covariance matrices if there are enough samples, else with diagonal ones."""
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
        notes.append(f"gmm: did not converge in {model.n_iter_} iterations")

    def predict(x: Tensor) -> Tensor:
        blocks = x.split(max(1, BLOCK // (4 * k)))
        return torch.cat([torch.from_numpy(model.predict(b.double().numpy())) for b in blocks]).long()

    return Clustering(predict(train), predict(queries), k, notes)


def _hdbscan(train: Tensor, queries: Tensor, min_cluster_size: int | None, seed: int) -> Clustering:
    """HDBSCAN fitted to at most HDBSCAN_ON samples; any other sample takes the assignment of the nearest of those."""
    from sklearn.cluster import HDBSCAN

    rows = subsample_rows(len(train), HDBSCAN_ON, derive(seed, "hdbscan"))
    size = min_cluster_size or max(5, len(rows) // 100)
    fitted = train[rows]
    fit = HDBSCAN(min_cluster_size=size, min_samples=min(5, len(rows)), copy=True).fit(fitted.double().numpy())
    labels = torch.from_numpy(fit.labels_).long()
    notes = [
        f"hdbscan: fitted to {len(rows):,} training samples with clusters of at least {size}; "
        "any other sample takes the assignment of the nearest of these"
    ]
    if len(rows) == len(train):
        return Clustering(labels, labels[nearest(queries, fitted)], int(labels.max()) + 1, notes)
    of_train = labels[nearest(train, fitted)]
    of_train[rows] = labels
    return Clustering(of_train, labels[nearest(queries, fitted)], int(labels.max()) + 1, notes)


# --------------------------------------------------------------------------------- silhouette and number of clusters


def subsample_rows(n: int, at_most: int, seed: int) -> Tensor:
    """Ascending row indices (m,) int64: all of n, or a random subset of `at_most`."""
    return torch.arange(n) if n <= at_most else order(seed, 0, n)[:at_most].sort().values


def subsample(x: Tensor, at_most: int, seed: int) -> Tensor:
    """At most `at_most` random rows of x; x itself if it has no more."""
    return x if len(x) <= at_most else x[subsample_rows(len(x), at_most, seed)]


def distances(x: Tensor, cosine: bool = False) -> Tensor:
    """Pairwise distances (n, n) float32 of the rows of x (n, p): Euclidean, or 1 - cosine. Memory is O(n^2)."""
    if cosine:
        table = torch.mm(x, x.T).neg_().add_(1)
    else:
        x = x - x.mean(dim=0)
        squares = x.square().sum(dim=1)
        table = torch.addmm(squares, x, x.T, alpha=-2).add_(squares[:, None])
    table.clamp_(min=0).fill_diagonal_(0)
    return table if cosine else table.sqrt_()


def silhouette(table: Tensor, assignment: Tensor) -> float:
    """Silhouette coefficient in -1..1 (Rousseeuw 1987): mean over samples of (b - a) / max(a, b).

    a is the mean distance to the other samples of the same cluster, b the mean distance to those of the nearest other
    cluster. Noise and samples alone in their cluster count as 0; with fewer than two clusters the result is 0.
    `table`: (n, n) distances; `assignment`: (n,).
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
    s = ((b - a) / torch.maximum(a, b)).nan_to_num(0.0)  # 0 / 0: all samples are equal
    return float(s.masked_fill(alone, 0.0).mean(dtype=torch.float64))


def ladder(most: int) -> list[int]:
    """Candidate numbers of clusters: 2, 3, ... 15, then each 20 % larger than the last."""
    steps = list(range(2, min(15, most) + 1))
    while steps and (step := round(steps[-1] * 1.2)) <= most:
        steps.append(step)
    return steps


def estimate(x: Tensor, spherical: bool, most: int, seed: int) -> tuple[int, dict[str, list[float]]]:
    """Estimate the number of clusters of x (n, p): the k of largest k-means silhouette on at most SILHOUETTE_ON samples.

    Returns k and the curve {"k": ..., "silhouette": ...}. Rousseeuw, "Silhouettes: a graphical aid to the interpretation
    and validation of cluster analysis", 1987. The estimate is biased to few clusters if large groups contain small ones;
    the curve shows this.
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
