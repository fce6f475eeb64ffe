"""Statistics of a batch of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """Collapse metric of embeddings (B, D): near 1 for isotropic embeddings, 0 where all embeddings are equal.

    The standard deviation of each dimension of the L2-normalized embeddings, averaged, times sqrt(D) (Chen & He, CVPR 2021,
    Sec. 4.1, who plot it without the factor).
    """
    unit = F.normalize(z.detach().float(), dim=1)
    return unit.std(dim=0).mean() * z.shape[1] ** 0.5


def covariance(z: Tensor) -> Tensor:
    """Unbiased covariance matrix: (N, D) -> (D, D)."""
    centered = z - z.mean(dim=0)
    return centered.T @ centered / (len(z) - 1)


def off_diagonal(matrix: Tensor) -> Tensor:
    """(D, D) -> (D * (D - 1),): the off-diagonal entries."""
    n = len(matrix)
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()
