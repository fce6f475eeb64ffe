"""Losses and distances that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


@full_precision
def cosine_distance(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine similarity of (B, D) predictions and targets, in [-1, 1]; no gradient reaches `z`."""
    return -F.cosine_similarity(p, z.detach(), dim=-1).mean()


@full_precision
def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """-log of the softmax (N, K) at `truth` (N,), the mean over N."""
    return F.cross_entropy(logits, truth)


@full_precision
def mse_known(predicted: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared error over the entries that are known (not NaN, which is padding) and, if given, true in `where`.

    `where` broadcasts to the shape of `target`. 0 when nothing is left.
    """
    known = ~torch.isnan(target)
    if where is not None:
        known = known & where
    error = (predicted - torch.nan_to_num(target)).masked_fill(~known, 0.0).square()
    count = all_reduce_mean(known.sum().to(error.dtype))  # processes may know different numbers of entries
    return error.sum() / count.clamp(min=1)
