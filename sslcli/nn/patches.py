"""Raw values of tokens as reconstruction targets, and losses over masked tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


def normalize_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize (B, N, P) by mean and standard deviation of each token; returns both (B, N, 1) too.

    Padding (NaN) is ignored; the variance is unbiased and has 1e-6 added, as in MAE's code."""
    count = (~patches.isnan()).sum(dim=2, keepdim=True)
    average = patches.nansum(dim=2, keepdim=True) / count.clamp(min=1)
    squares = (patches - average).square().nansum(dim=2, keepdim=True)
    std = (squares / (count - 1).clamp(min=1) + 1e-6).sqrt()
    return (patches - average) / std, average, std


@full_precision
def masked_l1(predicted: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean absolute error over entries whose target is not NaN and that are true in `where`, which broadcasts. 0 without any."""
    valid = ~torch.isnan(target) & where
    error = (predicted - torch.nan_to_num(target)).masked_fill(~valid, 0.0).abs()
    count = all_reduce_mean(valid.sum().to(error.dtype))  # the number of entries differs between processes
    return error.sum() / count.clamp(min=1)


@full_precision
def smooth_l1(predicted: Tensor, target: Tensor, where: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 (Huber loss over beta) of (B, N, D), averaged over D and the tokens where (B, N) is true; the target is detached.
    Quadratic below `beta`, linear above."""
    error = (predicted - target.detach()).abs()
    each = torch.where(error < beta, error.square() / (2 * beta), error - beta / 2).mean(dim=2)
    count = all_reduce_mean(where.sum().to(each.dtype))
    return (each * where).sum() / count.clamp(min=1)
