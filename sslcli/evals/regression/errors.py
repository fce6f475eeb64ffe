"""Errors of predicted values, with bootstrap intervals."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.metrics.interval import SUFFIX, Interval, students_quantile
from sslcli.rng import derive

RESAMPLES = 1_000
NAMES = ("rmse", "mae", "r2")


def errors(y: Tensor, predicted: Tensor, weight: Tensor | None = None) -> Tensor:
    """(3, draws): root mean squared error and mean absolute error in the unit of y, and the coefficient of determination R^2.

    y (n,), predicted (draws, n). `weight` (n,): how often each sample counts. R^2 is 0 for predictions of the mean of y, and NaN
    where all samples that count have one value."""
    w = torch.ones_like(y) if weight is None else weight
    difference, total = predicted - y, w.sum()
    # sums of rows, since a product of matrices may round equal rows differently
    squared, absolute = (difference.square() * w).sum(dim=1) / total, (difference.abs() * w).sum(dim=1) / total
    counting = y[w > 0]
    constant = counting.min() == counting.max()  # whose variance may be above 0 by rounding
    variance = ((y - (y @ w) / total).square() @ w) / total
    return torch.stack([squared.sqrt(), absolute, torch.where(constant, torch.nan, 1 - squared / variance)])


def error_intervals(prefix: str, y: Tensor, predicted: Tensor, seed: int) -> dict[str, Interval]:
    """95 % intervals of the means over draws: percentiles of the bootstrap over test samples; with several draws of labels each
    half is enlarged, in quadrature, by Student's interval of the mean over draws."""
    if len(y) < 2:
        return {}
    n, draws = len(y), len(predicted)
    generator = torch.Generator().manual_seed(derive(seed, "bootstrap"))
    resampled = torch.stack(
        [
            errors(y, predicted, torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).to(y.dtype))
            for _ in range(RESAMPLES)
        ]
    ).mean(dim=2)  # (resamples, 3)
    low, high = torch.nanquantile(resampled, torch.tensor([0.025, 0.975], dtype=y.dtype), dim=0)
    each = errors(y, predicted)
    value = each.mean(dim=1)
    if draws > 1:
        spread = students_quantile(draws - 1) * each.std(dim=1) / draws**0.5
        low, high = value - torch.hypot(value - low, spread), value + torch.hypot(high - value, spread)
    return {
        f"{prefix}{name}{SUFFIX}": (low[i].item(), high[i].item())
        for i, name in enumerate(NAMES)
        if bool(torch.isfinite(low[i] + high[i]))
    }
