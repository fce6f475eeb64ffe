"""SimSiam: negative cosine similarity with predictor and stop-gradient; no negatives, no momentum encoder.

Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021. https://arxiv.org/abs/2011.10566
B batch, P projection width. The stop-gradient prevents collapse. Each view is a forward pass of its own, so that batch norm
normalizes one view at a time, as in Algorithm 1. Deviations from the authors' code: head widths follow the backbone (`auto`).
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import negative_cosine_similarity
from sslcli.nn.stats import spread


class SimSiam(Method):
    min_loss = -1.0
    fixed_lr = ("predictor",)  # Sec. 4.2: a constant learning rate lets the predictor adapt to the latest encoder

    def __init__(self, backbone: nn.Module, proj_dim: Width = "auto", pred_dim: Width = "auto"):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        bottleneck = max(width // 4, 1) if pred_dim == "auto" else self.head_width(pred_dim, 512)  # 2048 -> 512
        # Three layers, batch norm after each; after the last without scale and shift, as in the code.
        self.projector = mlp(self.backbone.dim, width, width, width, last_norm="plain")
        self.predictor = mlp(width, bottleneck, width)  # two layers with a bottleneck, no batch norm at the output

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        return {"loss": simsiam_loss(p1, p2, z1, z2), "spread": spread(z1)}


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Eq. (4): D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2, with D the negative cosine similarity; in [-1, 1]."""
    return (negative_cosine_similarity(p1, z2) + negative_cosine_similarity(p2, z1)) / 2
