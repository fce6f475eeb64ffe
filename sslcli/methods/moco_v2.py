"""MoCo v2: InfoNCE loss with keys of a momentum encoder and a queue of past keys as negatives.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020. https://arxiv.org/abs/1911.05722
Chen et al., "Improved Baselines with Momentum Contrastive Learning". https://arxiv.org/abs/2003.04297 (the MLP head)
B batch, K queue, P projection width. Negatives prevent collapse. Deviations from the authors' code:
- No shuffled batch norm, which exchanges keys between GPUs and has no effect on one device; keys are still computed by another
  network in a forward pass of its own.
- Queue entries of the anchor's own sample are no negatives. A queue longer than the data (4,096 keys, 1,437 digits) contains
  every sample; where the queue is a small part of the data nothing changes.
- The momentum may rise along a cosine, 0.99 to 0.999 for short runs as in solo-learn; the paper's is always 0.999.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.queue import Queue
from sslcli.nn.stats import spread


class MoCoV2(Method):
    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        queue: int = 4096,
        temperature: float = 0.2,
        tau: float = 0.99,
        tau_end: float = 0.999,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 128)
        self.projector = mlp(self.backbone.dim, hidden, width, norm=False)
        self.teacher = Teacher(backbone, self.projector)  # f_k
        self.queue = Queue(queue, width)
        self.temperature, self.tau, self.tau_end = temperature, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x_q, x_k = batch.expect_views(2, "global")
        q = F.normalize(self.projector(self.backbone(x_q)), dim=1)  # (B, P)
        k = F.normalize(self.teacher(x_k), dim=1)  # (B, P), no gradient
        loss = info_nce(q, k, self.queue.keys, self.temperature, batch.ids[:, None] == self.queue.ids)
        if self.training and torch.is_grad_enabled():
            self.queue.stage(k, batch.ids)
        return {"loss": loss, "spread": spread(q)}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.projector, momentum=momentum)  # eq. (2)
        self.queue.push()

    def details(self) -> dict[str, str]:
        return {"queue": f"{len(self.queue.keys)} keys"}


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float, ignore: Tensor | None = None) -> Tensor:
    """Eq. (1): -log exp(q k+ / t) / (exp(q k+ / t) + sum over the queue of exp(q k / t)), the mean over B.

    q, k (B, P) and queue (K, P) are unit vectors; k and the queue are detached. `ignore` (B, K): entries that are no negatives.
    """
    positive = (q * k.detach()).sum(dim=1, keepdim=True)  # (B, 1)
    negative = q @ queue.detach().T  # (B, K)
    if ignore is not None:
        negative = negative.masked_fill(ignore, float("-inf"))
    logits = torch.cat([positive, negative], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))
