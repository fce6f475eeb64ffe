"""Losses shared by several methods."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean, gather, rank
from sslcli.nn.precision import full_precision


@full_precision
def negative_cosine_similarity(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine similarity of (B, D) predictions and targets, in [-1, 1]; `z` is detached."""
    return -F.cosine_similarity(p, z.detach(), dim=-1).mean()


@full_precision
def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (N, K) logits and class indices (N,), in full precision."""
    return F.cross_entropy(logits, target)


@full_precision
def masked_mse(predicted: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared error over the entries whose target is not NaN (padding) and that are true in `where`, if given.

    `where` broadcasts to the shape of `target`. 0 without any entry.
    """
    valid = ~torch.isnan(target)
    if where is not None:
        valid = valid & where
    error = (predicted - torch.nan_to_num(target)).masked_fill(~valid, 0.0).square()
    count = all_reduce_mean(valid.sum().to(error.dtype))  # the number of entries differs between processes
    return error.sum() / count.clamp(min=1)


@full_precision
def contrastive_loss(z: Tensor, other: Tensor, temperature: float) -> Tensor:
    """-log exp(s(i, i) / t) / sum over k of exp(s(i, k) / t), averaged over this process's rows i (InfoNCE of one direction).

    s(i, k) is the cosine similarity of row i of z and row k of `other` in the global batch; both (B, P)."""
    z, every = F.normalize(z, dim=1), gather(F.normalize(other, dim=1))  # (B, P), (N, P)
    positive = rank() * len(z) + torch.arange(len(z), device=z.device)
    return F.cross_entropy(z @ every.T / temperature, positive)
