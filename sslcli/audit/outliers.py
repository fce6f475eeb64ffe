"""Samples that are unlike all others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.audit.findings import CHECK, Finding
from sslcli.evals.fit.neighbors import nearest_neighbors

LEAST, MOST, SHARE = (
    5,
    200,
    0.02,
)  # neighbors: a share of the samples, so that a few foreign samples alike are far from most
FAR = 3.0  # robust standard deviations


def outliers(ids: Tensor, features: Tensor) -> list[Finding]:
    """The samples whose mean cosine distance to their nearest neighbors is FAR above the median, in units of 1.4826 times the
    median absolute deviation. `ids` (n,): of the `features` (n, d), without copies."""
    k = min(MOST, max(LEAST, round(SHARE * len(ids))))
    if len(ids) <= 2 * k:
        return []
    scores = robust_scores(neighbor_distances(features, k))
    return [Finding(int(ids[i]), "outlier", float(scores[i]), CHECK) for i in torch.nonzero(scores > FAR).flatten()]


def neighbor_distances(features: Tensor, k: int) -> Tensor:
    """(n,) mean cosine distance of each of the features (n, d) to its k nearest neighbors, itself left out."""
    z = F.normalize(features - features.mean(dim=0), dim=1)
    cosine, near = nearest_neighbors(z, z, k + 1)
    own = near == torch.arange(len(z))[:, None]
    own[:, -1] |= ~own.any(dim=1)  # one of several equal samples that are nearer than itself
    return 1 - cosine.masked_fill(own, 0.0).sum(dim=1) / k


def robust_scores(x: Tensor) -> Tensor:
    """(x - median) / (1.4826 median absolute deviation), (n,)."""
    middle = x.median()
    spread = 1.4826 * (x - middle).abs().median()
    return (x - middle) / spread.clamp(min=1e-12)
