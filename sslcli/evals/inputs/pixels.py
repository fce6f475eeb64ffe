"""Convert normalized inputs to pixel values and back."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.evals.base.features import EvalData


def _stats(data: EvalData, x: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(v, device=x.device).view(-1, *([1] * (x.ndim - 2)))
        for v in (data.dataset.values.mean, data.dataset.values.std)
    )
    return mean, std


def to_pixels(data: EvalData, x: Tensor) -> Tensor:
    """Images in 0..1; series as they are, in standard deviations."""
    if x.ndim != 4:
        return x
    mean, std = _stats(data, x)
    return (x * std + mean).clamp(0, 1)


def normalize(data: EvalData, x: Tensor) -> Tensor:
    if x.ndim != 4:
        return x
    mean, std = _stats(data, x)
    return (x - mean) / std
