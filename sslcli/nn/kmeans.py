"""k-means on the sphere, for methods that group what they have learned so far."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.precision import full_precision


@full_precision
def spherical_kmeans(x: Tensor, start: Tensor, iterations: int, weights: Tensor) -> Tensor:
    """(S, P) unit vectors, (K, P) first centroids, weights (S) 0 or 1 -> (K, P) unit centroids.

    Each round: every vector goes to the centroid of largest cosine, every centroid to the direction of its vectors' sum;
    one without vectors stays.
    """
    centroids = start
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, nearest(x, centroids), x * weights[:, None])
        alive = sums.square().sum(dim=1, keepdim=True) > 0
        centroids = torch.where(alive, F.normalize(sums, dim=1), centroids)
    return centroids


def nearest(x: Tensor, centroids: Tensor, rows: int = 65536) -> Tensor:
    """(S,) the centroid of largest inner product; in portions, for memories of millions."""
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in x.split(rows)])
