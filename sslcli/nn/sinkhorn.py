"""Sinkhorn-Knopp: balanced soft assignments over the global batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.nn.dist import gather
from sslcli.nn.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float | Tensor, iterations: int = 3, weights: Tensor | None = None) -> Tensor:
    """(B, K) scores of this process's samples -> (B, K) assignments, whose rows sum to 1.

    Approximates the transport from the N samples of the global batch to K prototypes, with uniform marginals, that maximizes
    <Q, scores> + epsilon H(Q) (Cuturi, "Sinkhorn Distances", NeurIPS 2013; Caron et al., SwAV, eqs. (3)-(5)), by `iterations`
    rounds of column and row normalization; with 0 rounds it is the softmax of each row. Computed in the log domain, so that a
    small epsilon cannot underflow. `weights` (B,): the weight of each row; rows of weight 0 are ignored.
    """
    logits = scores / epsilon
    count = torch.zeros_like(logits[:, :1]) if weights is None else weights.to(logits.dtype).log()[:, None]
    rows, columns = count, torch.zeros_like(logits[0])  # logarithms of the scalings, up to constants
    for _ in range(iterations):
        columns = -_logsumexp_of_all(logits + rows)
        rows = count - (logits + columns).logsumexp(dim=1, keepdim=True)
    return (logits + columns).softmax(dim=1)


def _logsumexp_of_all(x: Tensor) -> Tensor:
    """(B, K) -> (K,), over the rows of all processes; bounded below, for a column without mass."""
    local = x.logsumexp(dim=0) if len(x) else x.new_full(x.shape[1:], -math.inf)
    return gather(local[None]).logsumexp(dim=0).clamp(min=torch.finfo(x.dtype).min / 4)
