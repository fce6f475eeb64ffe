"""Cross-correlation of the embeddings of two views: the loss of Barlow Twins and of Mixed Barlow Twins."""

from __future__ import annotations

from torch import Tensor

from sslcli.nn.dist import gather
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import off_diagonal


@full_precision
def barlow_terms(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    """Eqs. (1), (2) for (B, P) embeddings: C (P, P) is the cross-correlation matrix of the views over the global batch;
    `invariance` is the sum of (1 - C_ii)^2, `redundancy` that of C_ij^2 over i != j.

    Each dimension is standardized as in batch norm (biased variance, eps 1e-5), as in the authors' code.
    """
    a, b = (standardize(gather(z)) for z in (z1, z2))
    c = a.T @ b / len(a)
    return {"invariance": (1 - c.diagonal()).square().sum(), "redundancy": off_diagonal(c).square().sum()}


def standardize(z: Tensor) -> Tensor:
    """(N, P) with mean 0 and variance 1 in each dimension, up to eps 1e-5 in the variance, as in batch norm."""
    return (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + 1e-5).sqrt()
