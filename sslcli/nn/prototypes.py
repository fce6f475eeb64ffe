"""Learned prototypes on the sphere, and cross-entropy losses between views or tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


class Prototypes(nn.Module):
    """(..., D) -> (..., K): cosine similarity with K learned unit vectors.

    The last layer of SwAV (unit columns) and of DINO (weight norm with scale 1). Vectors are normalized in the forward pass, so
    that a step cannot leave the sphere. `frozen`: the fraction of the run in which they are constant (zero gradient), because both
    authors report instability in the first steps otherwise.
    """

    moves: Tensor

    def __init__(self, dim: int, count: int, frozen: float = 0.0):
        super().__init__()
        if count < 2:
            raise ValueError(f"prototypes must be at least 2, got {count}")
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))
        if not 0 <= frozen <= 1:
            raise ValueError(f"frozen must be a fraction of the run from 0 to 1, got {frozen}")
        self.frozen = frozen
        self.register_buffer("moves", torch.tensor(float(frozen <= 0)))

    def forward(self, z: Tensor) -> Tensor:
        fixed = self.weight.detach()
        return cosine_similarity(z, fixed + self.moves * (self.weight - fixed))  # equal values; gradient times 0 or 1

    def after_step(self, progress: float) -> None:
        self.moves.fill_(float(progress >= self.frozen))


@full_precision
def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise cosine similarity: (..., D), (M, D) -> (..., M)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=1).T


def apply_to_tokens(head: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a head for (n, D) to (B, N, D)."""
    out: Tensor = head(tokens.flatten(0, 1))
    return out.unflatten(0, tokens.shape[:2])


@full_precision
def cross_view_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of views and targets of the *other* views, averaged over pairs and samples.

    logits (V, B, K) of all views; targets (G, B, K), probabilities of the first G of them.
    """
    pairs = [(v, t) for t in range(len(targets)) for v in range(len(logits)) if v != t]
    return torch.stack([F.cross_entropy(logits[v], targets[t]) for v, t in pairs]).mean()


@full_precision
def masked_token_loss(logits: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    """Cross-entropy of (B, N, K) logits and target probabilities over masked tokens (`hidden` (B, N)): averaged over the masked
    tokens of a sample, then over samples; a sample without masked tokens counts as 0 (code of iBOT and DINOv2)."""
    each = -(targets * logits.log_softmax(dim=2)).sum(dim=2)  # (B, N)
    weight = hidden.to(each.dtype) / hidden.sum(dim=1, keepdim=True).clamp(min=1)
    return (each * weight).sum(dim=1).mean()


@torch.no_grad()
def effective_prototypes(p: Tensor) -> Tensor:
    """Effective number of prototypes, from 1 to K: exp of the entropy of the mean of (B, K) probabilities over the global batch."""
    mean = all_reduce_mean(p.float().mean(dim=0) if p.dtype != torch.float64 else p.mean(dim=0))
    return torch.special.entr(mean).sum().exp()
