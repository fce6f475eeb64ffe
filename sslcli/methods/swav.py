"""SwAV: cross-entropy of predicting the Sinkhorn-Knopp prototype assignment of another view.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020.
https://arxiv.org/abs/2006.09882
B batch of this process, P projection width, K prototypes, V views, the first G of them global. Equipartition of the global batch
among the prototypes prevents collapse. Each view is a forward pass of its own. Deviations from the authors' code:
- The loss is the mean over pairs of views, as there; eq. (1) of the paper sums two.
- Prototypes are normalized in the forward pass, the code normalizes them before each step.
- One queue, of the first view, serves all views, which have the same distribution; theirs has one per view. It starts after a
  fraction of the run, and empty entries have weight 0.
- Sinkhorn-Knopp in the log domain; head widths follow the backbone (`auto`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import rank, world_size
from sslcli.nn.heads import Width, mlp
from sslcli.nn.prototypes import Prototypes, cross_view_loss, effective_prototypes
from sslcli.nn.queue import Queue
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.stats import spread


class SwAV(Method):
    compares = True
    late: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        prototypes: int = 512,
        temperature: float = 0.1,
        epsilon: float = 0.03,
        iterations: int = 3,
        frozen: float = 0.01,
        queue: int | None = 1024,
        queue_from: float = 0.1,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 128)
        self.projector = mlp(self.backbone.dim, hidden, width)
        self.prototypes = Prototypes(width, prototypes, frozen)  # C
        self.queue = None if queue is None else Queue(queue, width)
        self.register_buffer("late", torch.tensor(queue_from <= 0))  # whether the queue is used
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from = queue_from

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        z = [F.normalize(self.projector(self.backbone(x)), dim=1) for x in global_views + local_views]  # V x (B, P)
        scores = torch.stack([self.prototypes(one) for one in z])  # (V, B, K), z C
        codes = torch.stack([self.codes(one) for one in scores[: len(global_views)]])  # (G, B, K), no gradient
        if self.queue is not None and self.training and torch.is_grad_enabled():
            self.queue.stage(z[0], batch.ids)
        loss = cross_view_loss(scores / self.temperature, codes)  # Sec. 3.1, eqs. (1), (2)
        return {"loss": loss, "used": effective_prototypes(codes[0]), "spread": spread(z[0])}

    @torch.no_grad()
    def codes(self, scores: Tensor) -> Tensor:
        """Sec. 3.1, eqs. (3)-(5): (B, K) scores -> (B, K) soft codes, jointly with the queue ("working with small batches")."""
        if self.queue is None:
            return sinkhorn(scores, self.epsilon, self.iterations)
        part = slice(rank(), None, world_size())  # every process holds the same queue: each uses a part of it
        filled = (self.queue.ids[part] >= 0) & self.late
        weights = torch.cat([torch.ones_like(scores[:, 0]), filled.to(scores.dtype)])
        past = self.prototypes(self.queue.keys[part])
        return sinkhorn(torch.cat([scores, past]), self.epsilon, self.iterations, weights)[: len(scores)]

    def after_step(self, progress: float) -> None:
        self.prototypes.after_step(progress)
        self.late.fill_(progress >= self.queue_from)
        if self.queue is not None:
            self.queue.push()

    def assign(self, x: Tensor) -> Tensor:
        """Eq. (2): the softmax of the scores at the temperature of training."""
        return (self.prototypes(self.projector(self.backbone(x))) / self.temperature).softmax(dim=1)

    def details(self) -> dict[str, str]:
        queue = f"and {len(self.queue.keys)} of a queue, later" if self.queue is not None else "alone"
        return {
            "prototypes": f"{len(self.prototypes.weight)}, assigned equally over the batch {queue}",
        }
