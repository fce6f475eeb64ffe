"""FastSiam: SimSiam with more than two views, where the target of a view is the mean projection of all others.

Pototzky, Sultan & Schmidt-Thieme, "FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU", GCPR 2022.
https://doi.org/10.1007/978-3-031-16788-1_4
V views, B batch, P projection width. The mean of several projections varies less than one, so that training is stable with small
batches and few epochs. The stop-gradient prevents collapse. With two views it is SimSiam. Deviations from the paper: head widths
follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.heads import Width, mlp
from sslcli.nn.losses import negative_cosine_similarity
from sslcli.nn.stats import spread


class FastSiam(Method):
    min_loss = -1.0
    fixed_lr = ("predictor",)

    def __init__(self, backbone: nn.Module, proj_dim: Width = "auto", pred_dim: Width = "auto"):
        super().__init__(backbone)
        width = self.head_width(proj_dim, 2048)
        bottleneck = max(width // 4, 1) if pred_dim == "auto" else self.head_width(pred_dim, 512)
        self.projector = mlp(self.backbone.dim, width, width, width, last_norm="plain")
        self.predictor = mlp(width, bottleneck, width)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = torch.stack([self.projector(self.backbone(x)) for x in batch.many_views("global")])  # (V, B, P)
        p = torch.stack([self.predictor(one) for one in z])  # (V, B, P)
        return {"loss": fastsiam_loss(p, z), "spread": spread(z[0])}


def fastsiam_loss(p: Tensor, z: Tensor) -> Tensor:
    """Negative cosine similarity of each prediction p[v] and the mean of the projections z of the other views, which is detached;
    the mean over views. p, z (V, B, P); in [-1, 1]."""
    others = (z.sum(dim=0) - z) / (len(z) - 1)  # (V, B, P)
    return negative_cosine_similarity(p, others)
