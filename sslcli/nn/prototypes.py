"""Unit vectors that samples are compared with, heads in front of them, and the loss of views that predict each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


class Prototypes(nn.Module):
    """(..., D) -> (..., K) cosines with K learned directions.

    The last layer of SwAV (unit columns) and of DINO (weight norm, its scale fixed at 1) alike. Here the direction is
    made as it is used, so that a step cannot leave the sphere. `frozen`: the share of the run in which they stand still,
    for both authors found the first steps of training unstable otherwise; their gradient is then zero.
    """

    moves: Tensor

    def __init__(self, dim: int, count: int, frozen: float = 0.0):
        super().__init__()
        if count < 2:
            raise ValueError(f"there must be at least 2 prototypes, not {count}")
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))
        if not 0 <= frozen <= 1:
            raise ValueError(f"frozen={frozen}: it is a share of the run, from 0 to 1")
        self.frozen = frozen
        self.register_buffer("moves", torch.tensor(float(frozen <= 0)))

    def forward(self, z: Tensor) -> Tensor:
        still = self.weight.detach()
        return cosines(z, still + self.moves * (self.weight - still))  # the same numbers; the gradient times 0 or 1

    def after_step(self, progress: float) -> None:
        self.moves.fill_(float(progress >= self.frozen))


@full_precision
def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(..., D), (M, D) -> (..., M)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=1).T


def each_token(head: nn.Module, tokens: Tensor) -> Tensor:
    """A head for (n, D) on (B, N, D)."""
    out: Tensor = head(tokens.flatten(0, 1))
    return out.unflatten(0, tokens.shape[:2])


@full_precision
def cross_view(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of views and targets of the *other* views, the mean over pairs and samples.

    logits (V, B, K) of all views; targets (G, B, K), probabilities of the first G of them.
    """
    pairs = [(v, t) for t in range(len(targets)) for v in range(len(logits)) if v != t]
    return torch.stack([F.cross_entropy(logits[v], targets[t]) for v, t in pairs]).mean()


@full_precision
def hidden_tokens(logits: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    """The cross-entropy of (B, N, K) logits and target probabilities where `hidden` (B, N): the mean over the hidden tokens
    of a sample, then over all samples; one without hidden tokens counts as 0 (iBOT's code, and DINOv2's)."""
    each = -(targets * logits.log_softmax(dim=2)).sum(dim=2)  # (B, N)
    share = hidden.to(each.dtype) / hidden.sum(dim=1, keepdim=True).clamp(min=1)
    return (each * share).sum(dim=1).mean()


@torch.no_grad()
def effective_prototypes(p: Tensor) -> Tensor:
    """How many of K prototypes the global batch uses: exp of the entropy of the mean of (B, K) probabilities, 1 to K."""
    average = all_reduce_mean(p.float().mean(dim=0) if p.dtype != torch.float64 else p.mean(dim=0))
    return torch.special.entr(average).sum().exp()
