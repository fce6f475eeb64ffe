"""Barlow Twins: the cross-correlation matrix of two views is driven to the identity; no negatives, no momentum encoder.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021.
https://arxiv.org/abs/2103.03230
B batch of this process, N global batch, P projection width. Statistics are those of the global batch. Decorrelating the
dimensions, each standardized over the batch, prevents collapse. Deviations from the authors' code: head widths follow the
backbone (`auto`).
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.cross_correlation import barlow_terms
from sslcli.nn.heads import Width, mlp
from sslcli.nn.stats import spread


class BarlowTwins(Method):
    compares = True

    def __init__(self, backbone: nn.Module, proj_dim: Width = "auto", redundancy: float = 0.0051, scale: float = 0.1):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        self.projector = mlp(self.backbone.dim, width, width, width)  # Sec. 2.2: three layers
        self.redundancy, self.scale = redundancy, scale

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        terms = barlow_terms(z1, z2)
        loss = self.scale * (terms["invariance"] + self.redundancy * terms["redundancy"])  # eq. (1); the code scales it
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, "spread": spread(z1)}
