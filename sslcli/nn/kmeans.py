"""Spherical k-means for clustering methods."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.precision import full_precision


@full_precision
def spherical_kmeans(x: Tensor, start: Tensor, iterations: int, weights: Tensor) -> Tensor:
    """(S, P) unit vectors, (K, P) initial centroids, weights (S) 0 or 1 -> (K, P) unit centroids.

    Each iteration assigns every vector to the centroid of largest cosine similarity, then sets every centroid to the direction of
    the sum of its vectors; an empty one is unchanged.
    """
    centroids = start
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, nearest(x, centroids), x * weights[:, None])
        nonempty = sums.square().sum(dim=1, keepdim=True) > 0
        centroids = torch.where(nonempty, F.normalize(sums, dim=1), centroids)
    return centroids


def nearest(x: Tensor, centroids: Tensor, rows: int = 65536) -> Tensor:
    """(S,) the centroid of largest inner product; computed in parts, to bound memory for millions of vectors."""
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in x.split(rows)])
