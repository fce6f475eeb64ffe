"""NNCLR: the positive of a view is not the other view but its nearest neighbour among past samples.

Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations",
ICCV 2021. https://arxiv.org/abs/2104.14548
B batch of this process, N global batch, K queue, P projection width. Deviations from the paper:
- Entries of the sample itself are no neighbours of it. A queue that is not small against the data meets every sample
  again, and the neighbour would be the sample as it was an epoch ago.
- Entries that are not filled yet are no neighbours; a view that has none stands for itself, as in SimCLR.
- Head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather, rank
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.queue import Queue
from sslcli.nn.stats import spread


class NNCLR(Method):
    compares = True
    negatives = 1

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        pred_dim: Width = "auto",
        queue: int = 4096,
        temperature: float = 0.2,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        wide = self.head_width(pred_dim, 4096)
        self.projector = mlp(self.backbone.dim, hidden, hidden, width, last_norm="affine")  # Sec. 4.1: three layers
        self.predictor = mlp(width, wide, width)
        self.queue = Queue(queue, width)  # Q, the support set
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        n1, n2 = self.neighbours(z1, batch.ids), self.neighbours(z2, batch.ids)
        loss = (nearest_contrast(n1, p2, self.temperature) + nearest_contrast(n2, p1, self.temperature)) / 2
        if self.training and torch.is_grad_enabled():
            self.queue.hold(F.normalize(z1.detach(), dim=1), batch.ids)
        return {"loss": loss, "spread": spread(z1)}

    @torch.no_grad()
    def neighbours(self, z: Tensor, ids: Tensor) -> Tensor:
        """Eq. (2): (B, P) for each z its nearest entry of another sample; z itself where there is none yet."""
        best, at = self.queue.likeness(z, ids).max(dim=1)
        return torch.where(best[:, None] > float("-inf"), self.queue.keys[at], F.normalize(z, dim=1))

    def after_step(self, progress: float) -> None:
        self.queue.push()

    def details(self) -> dict[str, str]:
        return {
            "queue": f"{len(self.queue.keys)} keys",
        }


@full_precision
def nearest_contrast(neighbours: Tensor, predicted: Tensor, temperature: float) -> Tensor:
    """Eq. (3): -log exp(n_i p_i / t) / sum over k of exp(n_i p_k / t), k over the global batch, the mean over B.

    neighbours, predicted (B, P), normalised here; no gradient reaches the neighbours.
    """
    n, p = F.normalize(neighbours.detach(), dim=1), gather(F.normalize(predicted, dim=1))
    own = rank() * len(n) + torch.arange(len(n), device=n.device)
    return F.cross_entropy(n @ p.T / temperature, own)
