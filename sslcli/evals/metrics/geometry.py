"""Label-free metrics of features: effective rank, spectrum, invariance to views, uniformity, intrinsic dimension, learnability.

n samples, d features, q views. All are functions of their arguments; distances and eigenvalues are float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evals.fit.kmeans import kmeans
from sslcli.evals.fit.neighbors import classify
from sslcli.rng import derive, order

ROWS = 256  # samples whose distances to all others exist at a time
SPARE = 4  # neighbors more than wanted, looked at again in float64


def spectrum(x: Tensor) -> Tensor:
    """(min(n, d),) eigenvalues of the smaller of x'x and xx', descending, float64, none negative."""
    x = _double(x)
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)


def effective_rank(values: Tensor, eps: float = 1e-7) -> float:
    """exp of the entropy of non-negative values as shares of their sum; 1 where all are zero."""
    total = float(values.sum())
    if total == 0:
        return 1.0
    p = values / total + eps
    return float((-(p * p.log()).sum()).exp())


def rankme(x: Tensor, eps: float = 1e-7) -> float:
    """Effective rank of features (n, d), between 1 and min(n, d).

    Garrido et al., "RankMe", ICML 2023, arXiv:2210.02885, Eq. 1-2.
    """
    return effective_rank(spectrum(x).sqrt(), eps)


def alpha_req(x: Tensor) -> float:
    """The decay of the covariance's eigenvalues, fitted as i^-alpha over those above rounding; near 1 is best.

    Agrawal et al., "alpha-ReQ", NeurIPS 2022.
    """
    values = spectrum(x - x.mean(dim=0))
    values = values[values > 1e-10 * values[0]] if len(values) else values
    if len(values) < 2:
        return float("inf")  # one direction or none
    i = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    v = values.log()
    i, v = i - i.mean(), v - v.mean()
    return float(-(i * v).sum() / (i * i).sum())


def lidar(views: Tensor, delta: float = 1e-4) -> float:
    """Effective rank of the linear discriminant matrix of views (n, q, d), between 1 and min(d, n - 1).

    The effective rank of Sw^-1/2 Sb Sw^-1/2, where each sample is a class and its views are the class's members, Sb is the
    covariance of class means and Sw that within classes, plus `delta` on its diagonal. Thilak et al., "LiDAR", ICLR 2024,
    arXiv:2312.04000, Sec. 3. Both covariances are unbiased (n - 1 and n (q - 1) degrees of freedom).
    """
    n, q, d = views.shape
    assert min(n, q) > 1, (n, q)
    means = views.detach().cpu().mean(dim=1, dtype=torch.float64)
    between = means - means.mean(dim=0)
    within = torch.zeros(d, d, dtype=torch.float64)
    for block, mean in zip(views.split(max(1, 8192 // q)), means.split(max(1, 8192 // q)), strict=True):
        left = (_double(block) - mean[:, None]).flatten(0, 1)
        within += left.T @ left
    within = within / (n * (q - 1)) + delta * torch.eye(d, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(within)
    whitened = between @ vectors / values.clamp(min=1e-300).sqrt()
    return effective_rank(spectrum(whitened) / (n - 1))


def alignment(a: Tensor, b: Tensor, alpha: float = 2.0) -> float:
    """The mean distance of two views' features (n, d) on the unit sphere, to the power `alpha`: 0 where they agree.

    Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere",
    ICML 2020, arXiv:2005.10242, Sec. 4.1.1.
    """
    return float((unit(a) - unit(b)).norm(dim=1).pow(alpha).mean())


def uniformity(x: Tensor, t: float = 2.0) -> float:
    """log of the mean Gaussian potential of all pairs of features (n, d) on the unit sphere: 0 where all are one point.

    Its least value, for points spread evenly over a sphere of many dimensions, is near -2 t. Same paper, Sec. 4.1.2.
    """
    x = unit(x)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        potential = (2 * t * (rows @ x.T - 1)).exp()
        potential.diagonal(offset=start).zero_()  # a sample is no pair with itself
        total += potential.sum()
    return float((total / (len(x) * (len(x) - 1))).log())


def two_nn(x: Tensor, discard: float = 0.1) -> float:
    """The intrinsic dimension of samples (n, d) from the ratios of the distances to their two nearest neighbors.

    Facco et al., "Estimating the intrinsic dimension of datasets by a minimal neighborhood information", Scientific Reports
    2017: the slope, through the origin, of -log(1 - F) over log(r2 / r1), with F = i / N of the i-th smallest ratio, and
    the largest tenth left out. Samples with a double (r1 = 0) are left out; nan where fewer than ten ratios are left.
    """
    squared = nearest(x, 2)
    squared = squared[squared[:, 0] > 0]
    ratio = (squared[:, 1] / squared[:, 0]).log().sort().values / 2
    n_kept = int(len(ratio) * (1 - discard))
    if n_kept < 10 or float(ratio[n_kept - 1]) == 0:
        return math.nan
    share = torch.arange(1, n_kept + 1, dtype=torch.float64) / len(ratio)
    u, v = ratio[:n_kept], -torch.log1p(-share)
    return float((u * v).sum() / (u * u).sum())


def nearest(x: Tensor, k: int) -> Tensor:
    """(n, k) squared Euclidean distances of samples (n, d) to the k nearest others, ascending, float64."""
    x = x.detach().cpu().float()
    x = x - x.mean(dim=0)
    norms = x.square().sum(dim=1)
    n_candidates = min(k + SPARE, len(x) - 1)
    assert k <= n_candidates, (k, len(x))
    distances = torch.empty(len(x), k, dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        rough = norms - 2 * rows @ x.T
        rough.diagonal(offset=start).fill_(math.inf)
        near = rough.topk(n_candidates, dim=1, largest=False).indices
        exact = (rows.double()[:, None] - x[near].double()).square().sum(dim=2)
        distances[start : start + ROWS] = exact.sort(dim=1).values[:, :k]
    return distances


def learnability(x: Tensor, seed: int = 0, clusters: int | None = None) -> float:
    """1-NN accuracy in predicting the k-means clusters of one half of the samples (n, d) from the other half.

    Cluster learnability of Lu et al., "Using Representation Expressiveness and Learnability to Evaluate Self-Supervised
    Learning Methods", TMLR 2023, arXiv:2206.01251: held-out accuracy of nearest neighbors on k-means labels. The settings are ours
    and may differ from theirs: square root of n clusters, cosine distance, one neighbor, halves.
    """
    x = unit(x).float()
    if clusters is None:
        clusters = max(2, round(len(x) ** 0.5))
    assert 2 <= clusters <= len(x) // 2, (len(x), clusters)
    y = kmeans(x, clusters, seed=derive(seed, "learnability"), max_iter=100, spherical=True).assignment.cpu()
    shuffled = order(derive(seed, "learnability"), 0, len(x))
    bank, queries = shuffled[: len(x) // 2], shuffled[len(x) // 2 :]
    return float((classify(x[bank], y[bank], x[queries], 1, 0.1) == y[queries]).double().mean())


def unit(x: Tensor) -> Tensor:
    """Rows at length 1, float64 on the CPU."""
    return F.normalize(_double(x), dim=-1)


def _double(x: Tensor) -> Tensor:
    return x.detach().cpu().to(torch.float64)
