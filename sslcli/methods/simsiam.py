"""SimSiam: two views agree through a predictor; a stop-gradient keeps the agreement from being a constant.

Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021. https://arxiv.org/abs/2011.10566
B batch, P projection width. Each view is a forward pass of its own, so batch norm sees one view at a time, as in
Algorithm 1. Deviations from the authors' code: head widths follow the backbone (`auto`).
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import cosine_distance
from sslcli.nn.stats import spread


class SimSiam(Method):
    # The predictor's rate does not decay: it should keep up with the latest encoder (paper: Sec. 4.2).
    min_loss = -1.0
    fixed_lr = ("predictor",)

    def __init__(self, backbone: nn.Module, proj_dim: Width = "auto", pred_dim: Width = "auto"):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        bottleneck = max(width // 4, 1) if pred_dim == "auto" else self.head_width(pred_dim, 512)  # 2048 -> 512
        # Three layers, batch norm after each, the last included; the code leaves that one's scale and shift out.
        self.projector = mlp(self.backbone.dim, width, width, width, last_norm="plain")
        self.predictor = mlp(width, bottleneck, width)  # two layers, a bottleneck, nothing after

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        return {"loss": simsiam_loss(p1, p2, z1, z2), "spread": spread(z1)}


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Eq. (4): D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2, with D the negative cosine similarity; in [-1, 1]."""
    return (cosine_distance(p1, z2) + cosine_distance(p2, z1)) / 2
