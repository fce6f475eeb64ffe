"""Statistics of a batch of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """How far a batch (B, D) is from collapse: 1 is ideal, 0 means that every sample has the same embedding.

    The standard deviation of each dimension of the L2-normalised embedding, averaged, times sqrt(D): for isotropic z it
    is near 1 (Chen & He, CVPR 2021, Sec. 4.1, who plot it without the factor).
    """
    unit = F.normalize(z.detach().float(), dim=1)
    return unit.std(dim=0).mean() * z.shape[1] ** 0.5


def covariance(z: Tensor) -> Tensor:
    """(N, D) -> (D, D), unbiased."""
    centred = z - z.mean(dim=0)
    return centred.T @ centred / (len(z) - 1)


def off_diagonal(matrix: Tensor) -> Tensor:
    """(D, D) -> (D * (D - 1),): every entry that is not on the diagonal."""
    n = len(matrix)
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()
