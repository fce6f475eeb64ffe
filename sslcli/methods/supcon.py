"""SupCon: supervised contrastive loss, with all views of the same class as positives.

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020. https://arxiv.org/abs/2004.11362
B batch of this process, N global batch, P projection width. It uses labels: an upper bound, not a competitor. The positive of a
sample without a label is its other view, as in SimCLR. Deviations from the authors' code: the loss is not multiplied by
temperature / 0.07; each view is a forward pass of its own; head widths follow the backbone (`auto`).
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


class SupCon(Method):
    uses_labels = True
    compares = True

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
        self.projector = mlp(self.backbone.dim, hidden, width, norm=norm, last_norm="affine" if norm else "none")
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        assert batch.labels is not None
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        return {"loss": supcon_loss(z1, z2, batch.labels, self.temperature), "spread": spread(z1)}


@full_precision
def supcon_loss(z1: Tensor, z2: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Eq. (2), L_out: for each anchor i, -1 / |P(i)| times the sum over p in P(i) of log(exp(s(i, p) / t) / sum over
    a != i of exp(s(i, a) / t)), the mean over this process's 2 B anchors.

    s is the cosine similarity; a runs over the 2 N views of the global batch, P(i) over those of i's class, without i.
    labels (B,) int64, -1 for unlabeled samples.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    all_z = torch.cat([gather(z1), gather(z2)])  # (2 N, P)
    n = len(all_z) // 2
    sample = torch.arange(n, device=z1.device)
    all_labels = gather(labels.to(z1.device))
    index = rank() * len(z1) + torch.arange(len(z1), device=z1.device)  # (B,)
    same_class = (all_labels[index, None] == all_labels) & (all_labels[index, None] >= 0) | (
        index[:, None] == sample
    )  # (B, N)
    losses = []
    for view, z in enumerate((z1, z2)):
        self_ = torch.arange(2 * n, device=z1.device) == (view * n + index)[:, None]  # (B, 2 N)
        logits = (z @ all_z.T / temperature).masked_fill(self_, float("-inf"))
        positive = same_class.repeat(1, 2) & ~self_
        log_prob = logits.log_softmax(dim=1).masked_fill(~positive, 0.0).sum(dim=1)
        losses.append(-(log_prob / positive.sum(dim=1)).mean())
    return (losses[0] + losses[1]) / 2
