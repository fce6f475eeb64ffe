"""NNCLR: InfoNCE loss whose positive is the nearest neighbor of the other view in a queue of past embeddings.

Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations",
ICCV 2021. https://arxiv.org/abs/2104.14548
B batch of this process, N global batch, K queue, P projection width. Negatives prevent collapse. Deviations from the paper:
- Entries of the sample itself are not considered. A queue that is not small against the data contains every sample, and the
  neighbor would be the sample itself, an epoch ago.
- Empty entries are not considered; without any neighbor the positive is the view itself, as in SimCLR.
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
        n1, n2 = self.nearest_neighbors(z1, batch.ids), self.nearest_neighbors(z2, batch.ids)
        loss = (nearest_neighbor_loss(n1, p2, self.temperature) + nearest_neighbor_loss(n2, p1, self.temperature)) / 2
        if self.training and torch.is_grad_enabled():
            self.queue.stage(F.normalize(z1.detach(), dim=1), batch.ids)
        return {"loss": loss, "spread": spread(z1)}

    @torch.no_grad()
    def nearest_neighbors(self, z: Tensor, ids: Tensor) -> Tensor:
        """Eq. (2): (B, P), for each z the nearest queue entry of another sample; z itself without any."""
        best, at = self.queue.similarity(z, ids).max(dim=1)
        return torch.where(best[:, None] > float("-inf"), self.queue.keys[at], F.normalize(z, dim=1))

    def after_step(self, progress: float) -> None:
        self.queue.push()

    def details(self) -> dict[str, str]:
        return {
            "queue": f"{len(self.queue.keys)} keys",
        }


@full_precision
def nearest_neighbor_loss(neighbors: Tensor, predicted: Tensor, temperature: float) -> Tensor:
    """Eq. (3): -log exp(n_i p_i / t) / sum over k of exp(n_i p_k / t), k over the global batch, the mean over B.

    neighbors, predicted (B, P), normalized here; the neighbors are detached.
    """
    n, p = F.normalize(neighbors.detach(), dim=1), gather(F.normalize(predicted, dim=1))
    positive = rank() * len(n) + torch.arange(len(n), device=n.device)
    return F.cross_entropy(n @ p.T / temperature, positive)
