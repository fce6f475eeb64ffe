"""Raw values of tokens as targets of prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


def normalised(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, P) values, each token by its own mean and standard deviation (B, N, 1), which are returned too. Padding (NaN)
    does not count; the variance is unbiased and has 1e-6 added, as in MAE's code."""
    count = (~patches.isnan()).sum(dim=2, keepdim=True)
    average = patches.nansum(dim=2, keepdim=True) / count.clamp(min=1)
    squares = (patches - average).square().nansum(dim=2, keepdim=True)
    std = (squares / (count - 1).clamp(min=1) + 1e-6).sqrt()
    return (patches - average) / std, average, std


@full_precision
def l1_known(predicted: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean absolute error over what is known (not NaN) and true in `where`, which broadcasts. 0 when nothing is left."""
    known = ~torch.isnan(target) & where
    error = (predicted - torch.nan_to_num(target)).masked_fill(~known, 0.0).abs()
    count = all_reduce_mean(known.sum().to(error.dtype))  # processes may know different numbers of entries
    return error.sum() / count.clamp(min=1)


@full_precision
def smooth_l1(predicted: Tensor, target: Tensor, where: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 (Huber's, over beta) of (B, N, D), the mean over D and the tokens where (B, N) is true; no gradient reaches the
    target. Quadratic below `beta`, linear above."""
    error = (predicted - target.detach()).abs()
    each = torch.where(error < beta, error.square() / (2 * beta), error - beta / 2).mean(dim=2)
    count = all_reduce_mean(where.sum().to(each.dtype))
    return (each * where).sum() / count.clamp(min=1)
