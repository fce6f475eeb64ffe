"""Anomaly scores fitted to features of normal samples; a higher score is more anomalous."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evals.fit.neighbors import nearest_neighbors

SUPPORT_FROM = 4_000  # samples a one-class SVM is fitted to at most: the table of their products is 128 MB
BLOCK = 1 << 22  # numbers in a table of samples by samples


def knn(normal: Tensor, queries: Tensor, k: int, device: torch.device) -> Tensor:
    """(m,) mean cosine distance of `queries` (m, d) to the k nearest of `normal` (n, d).

    Directions, as in Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022 (who take
    the distance to the k-th alone): the usual geometry of self-supervised features.
    """
    near, _ = nearest_neighbors(F.normalize(normal, dim=1), F.normalize(queries, dim=1), min(k, len(normal)), device)
    return 1 - near.mean(dim=1)


def knn_l2(normal: Tensor, queries: Tensor, k: int, device: torch.device) -> Tensor:
    """(m,) mean Euclidean distance of `queries` (m, d) to the k nearest of `normal` (n, d).

    Bergman, Cohen & Hoshen, "Deep Nearest Neighbor Anomaly Detection", arXiv:2002.10445. Suits raw inputs, where the
    norm of the vector is informative.
    """
    middle = normal.mean(dim=0)
    bank, queries = normal - middle, queries - middle
    # the largest a.b - |a|^2 / 2 is the smallest distance: one more column makes a dot product of it
    half = bank.square().sum(dim=1, keepdim=True) / -2
    ones = torch.ones(len(queries), 1)
    _, near = nearest_neighbors(torch.cat([bank, half], 1), torch.cat([queries, ones], 1), min(k, len(bank)), device)
    size = max(1, BLOCK // (near.shape[1] * bank.shape[1]))
    pairs = zip(queries.split(size), near.split(size), strict=True)
    return torch.cat([(q[:, None] - bank[i]).square().sum(dim=2).sqrt().mean(dim=1) for q, i in pairs])


def mahalanobis(normal: Tensor, queries: Tensor, device: torch.device) -> Tensor:
    """(m,) distance of `queries` (m, d) to the mean of `normal` (n, d) under their shrunk covariance.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018,
    Eq. 2, of one class, with Ledoit & Wolf's estimate of the covariance. Where `normal` does not vary at all, the distance
    is Euclidean.
    """
    covariance, _, mean = ledoit_wolf(normal.to(device))
    level = float(covariance.diagonal().mean()) or 1.0
    covariance.diagonal().add_(1e-10 * level)  # keeps the matrix positive definite under rounding
    if not float(covariance.diagonal().max()) > 1e-9 * level:
        covariance.fill_diagonal_(1.0)
    factor = torch.linalg.cholesky(covariance)
    parts = []
    for part in queries.split(max(1, BLOCK // queries.shape[1])):
        away = part.to(device).double() - mean
        parts.append(
            torch.linalg.solve_triangular(factor, away.T, upper=False).square().sum(dim=0).sqrt().float().cpu()
        )
    return torch.cat(parts)


def ledoit_wolf(x: Tensor) -> tuple[Tensor, float, Tensor]:
    """The covariance (d, d) of x (n, d) shrunk towards the mean variance, by how much (0..1), and the mean (d,); float64.

    Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate Analysis 88, 2004.
    scikit-learn's does the same in three products of x with itself; with the identity sum_k |x_k x_k' - S|^2 =
    sum_k |x_k|^4 - n |S|^2 one is enough.
    """
    n, d = x.shape
    mean = x.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    fourth = torch.zeros((), dtype=torch.float64, device=x.device)
    for part in x.split(max(1, BLOCK // d)):
        away = part.double() - mean
        covariance.addmm_(away.T, away)
        fourth += away.square().sum(dim=1).square().sum()
    covariance /= n
    mu = float(covariance.diagonal().mean())
    norm = float(covariance.square().sum())
    spread = norm / d - mu**2  # d^2 of the paper, over the dimensions: how far from a multiple of the identity
    noise = (float(fourth) / n - norm) / (n * d)  # b-bar^2
    shrink = min(noise, spread) / spread if spread > 0 else 1.0
    covariance.mul_(1 - shrink).diagonal().add_(shrink * mu)
    return covariance, shrink, mean


def ocsvm(normal: Tensor, queries: Tensor, nu: float, seed: int, device: torch.device) -> Tensor:
    """(m,) negative decision function of `queries` (m, d) for a one-class SVM of `normal` (n, d), at most SUPPORT_FROM of them.

    Schoelkopf et al., "Estimating the support of a high-dimensional distribution", Neural Computation 13, 2001; scikit-learn's,
    with the kernel exp(-|a - b|^2 / v), v the sum of the variances of the features (its `gamma="scale"` would change with
    their means). Products are made here, all at once: libsvm makes them one by one.
    """
    from sklearn.svm import OneClassSVM

    from sslcli.evals.fit.clustering import subsample

    subset = subsample(normal, SUPPORT_FROM, seed).to(device)
    middle = subset.mean(dim=0)
    subset = subset - middle
    gamma = 1 / (float(subset.var(dim=0, correction=0).sum()) or 1.0)
    model = OneClassSVM(kernel="precomputed", nu=nu).fit(_rbf(subset, subset, gamma).double().cpu().numpy())
    support = subset[torch.from_numpy(model.support_).long().to(device)]
    weights = torch.from_numpy(model.dual_coef_[0]).float().to(device)
    parts = (part.to(device) - middle for part in queries.split(max(1, BLOCK // len(support))))
    return -torch.cat([(_rbf(part, support, gamma) @ weights).cpu() for part in parts])


def _rbf(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    """(n, m)"""
    squares = torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2).add_(a.square().sum(dim=1)[:, None])
    return squares.clamp_(min=0).mul_(-gamma).exp_()


# ------------------------------------------------------------------------------------------------------------ how well
