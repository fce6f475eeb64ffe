"""ReSSL: cross-entropy between similarity distributions over a queue, of a strong view and of an EMA teacher's weak view.

Zheng et al., "ReSSL: Relational Self-Supervised Learning with Weak Augmentation", NeurIPS 2021.
https://arxiv.org/abs/2107.09282
B batch, K queue, P projection width. The sharper teacher distribution and the momentum encoder prevent collapse. The first view
of the plan is the teacher's (weak), the second the student's (strong). Deviations from the authors' code: no shuffled batch norm
(see moco_v2); head widths follow the backbone (`auto`); the momentum may rise, as in solo-learn.
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


class ReSSL(Method):
    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        queue: int = 4096,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 4096)
        width = self.head_width(proj_dim, 256)
        self.projector = mlp(self.backbone.dim, hidden, width, norm=False)
        self.teacher = Teacher(backbone, self.projector)
        self.queue = Queue(queue, width)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.tau, self.tau_end = tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        weak, strong = batch.expect_views(2, "weak", "global")
        q = F.normalize(self.projector(self.backbone(strong)), dim=1)  # (B, P)
        k = F.normalize(self.teacher(weak), dim=1)  # (B, P), no gradient
        loss = relation_loss(q, k, self.queue.keys, self.temperature, self.teacher_temperature)
        if self.training and torch.is_grad_enabled():
            self.queue.stage(k, batch.ids)
        return {"loss": loss, "spread": spread(q)}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.projector, momentum=momentum)
        self.queue.push()

    def details(self) -> dict[str, str]:
        return {"queue": f"{len(self.queue.keys)} keys"}


@full_precision
def relation_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float, teacher_temperature: float) -> Tensor:
    """Eqs. (3)-(5): the cross-entropy of two distributions over the queue, the student's softmax(q . queue / t) and the
    teacher's, averaged over B.

    q, k (B, P) and queue (K, P) are unit vectors; k and the queue are detached. The teacher's temperature is
    lower, which sharpens its distribution (Sec. 3.2).
    """
    queue = queue.detach()
    target = (k.detach() @ queue.T / teacher_temperature).softmax(dim=1)  # (B, K)
    return F.cross_entropy(q @ queue.T / temperature, target)
