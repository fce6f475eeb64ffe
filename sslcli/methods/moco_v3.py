"""MoCo v3: InfoNCE loss between predictions and a momentum encoder's keys of the batch; no queue.

Chen, Xie & He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021.
https://arxiv.org/abs/2104.02057
B batch of this process, N global batch, P projection width. Negatives prevent collapse. Deviations from the authors' code: head
widths follow the backbone (`auto`); the projector has two layers, as theirs for a ResNet, also for a ViT (theirs: three); the
patch projection of a ViT is trained unless `freeze_patches` (Sec. 4.2: freezing stabilizes long runs with large batches).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import gather, rank
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread


class MoCoV3(Method):
    compares = True
    negatives = 1

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        temperature: float = 0.2,
        tau: float = 0.99,
        tau_end: float = 1.0,
        freeze_patches: bool = False,
    ):
        super().__init__(backbone)
        if freeze_patches:
            if not hasattr(self.backbone, "patch_embed"):
                raise ValueError("freeze_patches requires a vision transformer: this backbone has no patch projection")
            self.backbone.patch_embed.requires_grad_(False)
        hidden = self.head_width(hidden_dim, 4096)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width, last_norm="plain")
        self.predictor = mlp(width, hidden, width, last_norm="plain")
        self.teacher = Teacher(backbone, self.projector)  # f_k
        self.temperature, self.tau, self.tau_end = temperature, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x1, x2 = batch.expect_views(2, "global")
        z1, z2 = self.projector(self.backbone(x1)), self.projector(self.backbone(x2))  # (B, P)
        q1, q2 = self.predictor(z1), self.predictor(z2)
        k1, k2 = self.teacher(x1), self.teacher(x2)  # no gradient
        loss = contrastive_loss(q1, k2, self.temperature) + contrastive_loss(q2, k1, self.temperature)  # Algorithm 1
        return {"loss": loss, "spread": spread(z1)}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.projector, momentum=momentum)


@full_precision
def contrastive_loss(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """Eq. (1) and Algorithm 1: 2 t times the cross-entropy of identifying the positive key among those of the global batch.

    q, k (B, P), normalized here; k is detached.
    """
    q, k = F.normalize(q, dim=1), gather(F.normalize(k.detach(), dim=1))
    positive = rank() * len(q) + torch.arange(len(q), device=q.device)
    return 2 * temperature * F.cross_entropy(q @ k.T / temperature, positive)
