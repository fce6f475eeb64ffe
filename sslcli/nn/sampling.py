"""Random draws from predicted distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.nn.precision import full_precision


@full_precision
def sample_categories(logits: Tensor, uniform: Tensor) -> Tensor:
    """Categories (n,) int64 from the softmax of logits (n, V), by inversion of the cumulative distribution: a function of the
    uniform random numbers (n,) in [0, 1). A category whose logit is -inf is never drawn."""
    total = logits.softmax(dim=1).cumsum(dim=1)  # (n, V), increasing
    threshold = (uniform.to(total.dtype) * total[:, -1])[:, None]
    drawn = torch.searchsorted(total, threshold, right=True)[:, 0]
    last = logits.shape[1] - 1 - (logits > -torch.inf).flip(1).long().argmax(dim=1)  # where rounding passes the end
    return torch.minimum(drawn, last)
