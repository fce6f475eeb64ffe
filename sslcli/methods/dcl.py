"""DCL: SimCLR's contrastive loss without the positive pair in the denominator, less dependent on the batch size.

Yeh et al., "Decoupled Contrastive Learning", ECCV 2022. https://arxiv.org/abs/2110.06848
B batch of this process, N global batch, P projection width. Negatives prevent collapse. Deviations from the paper: the loss is
the mean over the 2 N anchors, the paper's is their sum; each view is a forward pass of its own; head widths follow the backbone
(`auto`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather, rank
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class DCL(Method):
    min_loss = -math.inf  # the positive pair is not in the denominator
    compares = True
    negatives = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        temperature: float = 0.1,
        weighted: bool = False,
        sigma: float = 0.5,
        norm: bool = False,  # of runs that lack the key; the YAML file has true
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width, norm=norm, last_norm="affine" if norm else "none")
        self.temperature, self.sigma = temperature, sigma if weighted else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        return {"loss": decoupled_contrastive_loss(z1, z2, self.temperature, self.sigma), "spread": spread(z1)}


@full_precision
def decoupled_contrastive_loss(z1: Tensor, z2: Tensor, temperature: float, sigma: float | None = None) -> Tensor:
    """Eq. (5): -w s(i, j) / t + log of the sum of exp(s(i, k) / t) over both views k of all *other* samples, the mean over
    this process's anchors.

    s is the cosine similarity, j the other view of i's sample. w is 1, or with `sigma` eq. (6)'s weight: 2 minus
    exp(s(i, j) / sigma) over its mean, which reduces the weight of pairs that already agree (DCLW); it is detached.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)  # (B, P)
    all1, all2 = gather(z1), gather(z2)  # (N, P)
    index = rank() * len(z1) + torch.arange(len(z1), device=z1.device)
    same = index[:, None] == torch.arange(len(all1), device=z1.device)  # (B, N)
    positive = (z1 * z2).sum(dim=1)  # (B,)
    weight = torch.ones_like(positive)
    if sigma is not None:
        similarity = (positive.detach() / sigma).exp()
        weight = 2 - similarity / gather(similarity).mean()

    def others(anchors: Tensor) -> Tensor:
        """(B,) log of the sum over all views of other samples."""
        to_all = [(anchors @ z.T / temperature).masked_fill(same, float("-inf")) for z in (all1, all2)]
        return torch.cat(to_all, dim=1).logsumexp(dim=1)

    return ((others(z1) + others(z2)) / 2 - weight * positive / temperature).mean()
