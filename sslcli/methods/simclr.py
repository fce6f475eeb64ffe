"""SimCLR: NT-Xent contrastive loss between two views, with the other samples of the global batch as negatives.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020. https://arxiv.org/abs/2002.05709
B batch of this process, N global batch, P projection width. Negatives prevent collapse. Deviations from the authors' code: each
view is a forward pass of its own, theirs is one pass of both, whose batch norm mixes them; the last batch norm of the head has a
shift, theirs has none; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather, rank
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class SimCLR(Method):
    compares = True
    negatives = 2

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        temperature: float = 0.2,
        norm: bool = False,  # of runs that lack the key; the YAML file has true
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        # Sec. 4.2: g(h) = W2 relu(W1 h); with `norm`, batch norm after both layers, as in the authors' code
        self.projector = mlp(self.backbone.dim, hidden, width, norm=norm, last_norm="affine" if norm else "none")
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        return {"loss": nt_xent(z1, z2, self.temperature), "spread": spread(z1)}


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Eq. (1), NT-Xent: -log exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t), averaged over this process's
    anchors.

    s is the cosine similarity, j the other view of i's sample, k runs over the 2 N views of the global batch.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)  # (B, P)
    all1, all2 = gather(z1), gather(z2)  # (N, P)
    positive = rank() * len(z1) + torch.arange(len(z1), device=z1.device)  # (B,) rows of this process's samples
    self_ = positive[:, None] == torch.arange(len(all1), device=z1.device)  # (B, N)

    def one_side(anchors: Tensor, others: Tensor, same: Tensor) -> Tensor:
        to_others = anchors @ others.T / temperature  # (B, N), positives at `positive`
        to_same = (anchors @ same.T / temperature).masked_fill(self_, float("-inf"))
        return F.cross_entropy(torch.cat([to_others, to_same], dim=1), positive)

    return (one_side(z1, all2, all1) + one_side(z2, all1, all2)) / 2
